//! Failures that are told in several lines of one session (`<F-MLFID>`): who it is in one, what
//! happened in another. Bounded in number and in time.

use std::collections::{BTreeSet, HashMap, VecDeque};

use jiff::{SignedDuration, Timestamp};

use super::{client, groups::Fields};

/// Sessions remembered at once; beyond it the oldest is forgotten.
const MAX_SESSIONS: usize = 1024;
/// A session that is this old is forgotten.
const MAX_AGE: SignedDuration = SignedDuration::from_mins(5);
/// The fields that say whose failure it is.
const WHO: [&str; 8] =
    ["fid", "ip4", "ip6", "dns", "cidr", "glued", client::XFF, client::FORWARDED];

#[derive(Debug)]
struct Session {
    began: Timestamp,
    fields: Fields,
    users: BTreeSet<String>,
    /// A failure was seen, but no address to hold responsible.
    pending: bool,
}

/// The sessions of one log.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    known: HashMap<String, Session>,
    /// In the order in which they began.
    order: VecDeque<(Timestamp, String)>,
}

fn set(fields: &Fields, name: &str) -> bool {
    fields.get(name).is_some_and(|value| !value.is_empty())
}

impl Sessions {
    /// Joins `fields` with what is known of the session `id`. `nofail` is in the result where the
    /// line reports no failure by itself.
    pub(super) fn merge(&mut self, id: &str, mut fields: Fields, now: Timestamp) -> Fields {
        self.expire(now);
        let gained = set(&fields, "mlfgained");
        if gained && !set(&fields, "nofail") {
            fields.insert("nofail".to_owned(), "gained".to_owned());
        }
        let forget = fields.remove("mlfforget").is_some_and(|value| !value.is_empty());
        let user = fields.get("user").filter(|user| !user.is_empty()).cloned();
        let Some(session) = self.known.get_mut(id) else {
            if !forget {
                self.remember(id, &fields, user, now);
            }
            return fields;
        };
        session.users.extend(user);
        session.fields.remove("nofail");
        session.fields.remove("mlfgained");
        if gained {
            session.pending = false;
        }
        // a line that names somebody is about nobody that an earlier one named, in another way or
        // by an address of the other family
        if WHO.iter().any(|name| set(&fields, name)) {
            session.fields.retain(|name, _| !WHO.contains(&name.as_str()));
        }
        session.fields.append(&mut fields);
        // A failure was owed, or a second user tried: this line tells of a failure after all.
        if std::mem::take(&mut session.pending) || session.users.len() > 1 {
            session.fields.remove("nofail");
            session.fields.remove("mlfgained");
        }
        let merged = session.fields.clone();
        if forget {
            self.known.remove(id);
        }
        merged
    }

    /// The session's failure waits for a line that names an address.
    pub(super) fn owe(&mut self, id: &str) {
        if let Some(session) = self.known.get_mut(id) {
            session.pending = true;
        }
    }

    fn remember(&mut self, id: &str, fields: &Fields, user: Option<String>, now: Timestamp) {
        if self.known.len() >= MAX_SESSIONS {
            self.forget_oldest();
        }
        let users = user.into_iter().collect();
        let session = Session { began: now, fields: fields.clone(), users, pending: false };
        self.known.insert(id.to_owned(), session);
        self.order.push_back((now, id.to_owned()));
    }

    fn expire(&mut self, now: Timestamp) {
        while self.order.front().is_some_and(|(began, _)| now.duration_since(*began) > MAX_AGE) {
            self.forget_oldest();
        }
        // Sessions that ended by themselves leave their place in the order behind.
        while self.order.len() > 2 * MAX_SESSIONS {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((began, id)) = self.order.pop_front()
            && self.known.get(&id).is_some_and(|session| session.began == began)
        {
            self.known.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(list: &[(&str, &str)]) -> Fields {
        list.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn a_session_is_joined_and_forgotten() {
        let mut sessions = Sessions::default();
        let now = Timestamp::UNIX_EPOCH;
        let first = sessions.merge("1", fields(&[("nofail", "x"), ("ip4", "a")]), now);
        assert!(first.contains_key("nofail"));
        let second = sessions.merge("1", fields(&[("user", "u"), ("mlfforget", "x")]), now);
        assert_eq!(second, fields(&[("ip4", "a"), ("user", "u")]));
        let third = sessions.merge("1", fields(&[("user", "u")]), now);
        assert!(!third.contains_key("ip4"));
    }

    #[test]
    fn the_line_itself_says_who_it_is() {
        let mut sessions = Sessions::default();
        let now = Timestamp::UNIX_EPOCH;
        sessions.merge("1", fields(&[("ip4", "a"), ("cidr", "24")]), now);
        let second = sessions.merge("1", fields(&[("ip6", "b"), ("user", "u")]), now);
        assert_eq!(second, fields(&[("ip6", "b"), ("user", "u")]));
        let third = sessions.merge("1", fields(&[("user", "v")]), now);
        assert_eq!(third, fields(&[("ip6", "b"), ("user", "v")]));
    }

    #[test]
    fn a_second_user_is_a_failure() {
        let mut sessions = Sessions::default();
        let now = Timestamp::UNIX_EPOCH;
        sessions.merge("1", fields(&[("nofail", "x"), ("user", "u")]), now);
        let second = sessions.merge("1", fields(&[("nofail", "x"), ("user", "v")]), now);
        assert!(!second.contains_key("nofail"));
    }

    #[test]
    fn memory_is_bounded() {
        let mut sessions = Sessions::default();
        let mut now = Timestamp::UNIX_EPOCH;
        for number in 0..10_000 {
            sessions.merge(&number.to_string(), Fields::new(), now);
            assert!(sessions.known.len() <= MAX_SESSIONS);
            assert!(sessions.order.len() <= 2 * MAX_SESSIONS + 1);
        }
        now += SignedDuration::from_mins(6);
        sessions.merge("new", Fields::new(), now);
        assert_eq!(sessions.known.len(), 1);
    }
}
