//! Who may use the control socket: users who can open it may read, and operators may change.
//! Knows users and groups by number; names are looked up at the start and at a reload.

use std::{
    collections::HashSet,
    fs,
    process::{Command, Stdio},
    sync::{Arc, PoisonError, RwLock},
};

use super::{ServerError, limits::Rank};

/// All users who may open the socket, in `[agent] operators`.
const EVERYBODY: &str = "*";

/// What the kernel's word on a peer is held against; clones share the operators.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The socket's group; its members may open it.
    pub(super) group: Option<u32>,
    operators: Arc<RwLock<Operators>>,
}

/// Who may change anything, beside root.
#[derive(Debug, Default)]
struct Operators {
    users: HashSet<u32>,
    everybody: bool,
}

impl Access {
    /// Returns the number of the sockets' group.
    #[must_use]
    pub fn group(&self) -> Option<u32> {
        self.group
    }

    /// Returns the group and the operators by these names or numbers. Root may always do
    /// everything.
    ///
    /// # Errors
    /// If the machine knows one of them not.
    pub fn resolve(group: Option<&str>, operators: &[String]) -> Result<Access, ServerError> {
        let group = match group {
            Some(name) => {
                Some(id("group", name).ok_or_else(|| ServerError::Group(name.to_owned()))?)
            }
            None => None,
        };
        let names = operators.iter().filter(|name| *name != EVERYBODY);
        let operators_of =
            |name: &String| id("passwd", name).ok_or_else(|| ServerError::Operator(name.clone()));
        let everybody = operators.iter().any(|name| name == EVERYBODY);
        let users = names.map(operators_of).collect::<Result<_, _>>()?;
        let operators = Arc::new(RwLock::new(Operators { users, everybody }));
        Ok(Access { group, operators })
    }

    /// From now on the operators of `other` are the operators, for connections to come.
    pub fn take_over(&self, other: Access) {
        let mut new = other.operators.write().unwrap_or_else(PoisonError::into_inner);
        let mut own = self.operators.write().unwrap_or_else(PoisonError::into_inner);
        *own = std::mem::take(&mut *new);
    }

    /// Returns whether the user may change anything.
    #[must_use]
    pub fn may_change(&self, user: u32) -> bool {
        let operators = self.operators.read().unwrap_or_else(PoisonError::into_inner);
        user == 0 || operators.everybody || operators.users.contains(&user)
    }

    pub(super) fn rank(&self, user: u32) -> Rank {
        match user {
            0 => Rank::Root,
            _ if self.may_change(user) => Rank::Operator,
            _ => Rank::Reader,
        }
    }
}

/// Returns the number of a user or group: as it stands, from the file, or from wherever else the
/// machine keeps them (nsswitch.conf(5)).
fn id(database: &str, name: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    let text = fs::read_to_string(format!("/etc/{database}")).unwrap_or_default();
    number(&text, name).or_else(|| {
        let mut getent = Command::new("getent");
        getent.args([database, name]).stdin(Stdio::null()).stderr(Stdio::null());
        number(&String::from_utf8_lossy(&getent.output().ok()?.stdout), name)
    })
}

/// Returns the third field of the line `NAME:…:NUMBER:…`.
fn number(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(operators: &[&str]) -> Access {
        let operators: Vec<String> = operators.iter().map(|name| (*name).to_owned()).collect();
        Access::resolve(Some("daemon"), &operators).unwrap()
    }

    #[test]
    fn operators_change_and_others_do_not() {
        let some = access(&["daemon", "4711"]);
        assert_eq!(some.group, number(&fs::read_to_string("/etc/group").unwrap(), "daemon"));
        let daemon = number(&fs::read_to_string("/etc/passwd").unwrap(), "daemon").unwrap();
        for (user, expected) in [(0, true), (daemon, true), (4711, true), (4712, false)] {
            assert_eq!(some.may_change(user), expected, "{user}");
        }
        assert!(!access(&[]).may_change(daemon) && access(&[]).may_change(0));
        assert!(access(&["*"]).may_change(4712));
        // a reload is heard of by whoever holds the same
        let held = some.clone();
        some.take_over(access(&["4712"]));
        assert!(held.may_change(4712) && !held.may_change(4711));
    }

    #[test]
    fn a_name_that_nobody_has_is_an_error() {
        let nobody = ["no-such-user-here".to_owned()];
        assert!(matches!(Access::resolve(None, &nobody), Err(ServerError::Operator(_))));
        let group = Access::resolve(Some("no-such-group-here"), &[]);
        assert!(matches!(group, Err(ServerError::Group(_))));
        assert_eq!(number("root:x:0:0:r\nrootling:x:7:", "rootl"), None);
    }
}
