//! Asks a jail's `ignorecommand` about failures before they are counted, each with its own fields,
//! as fail2ban does. The jail waits for the answers, nothing else does. No answer is no pardon:
//! what a command that fails, takes too long or has too much to do says nothing of, counts.

use std::{collections::HashMap, sync::Arc, time::Instant};

use tokio::task::JoinSet;

use crate::{
    action::{Answers, TIMEOUT, Ticket, ask, question},
    event::Shown,
    jail::IgnoreCommand,
};

/// Questions about lines that were read together.
const MOST: usize = 1024;
/// Commands of one jail that run at once.
const AT_ONCE: usize = 4;

/// Asks for one jail.
pub(crate) struct Inquiry {
    jail: Arc<str>,
    command: Arc<str>,
    answers: Option<Answers>,
}

/// What a command has said of the failures with this key.
type Said = (String, Result<bool, String>);

impl Inquiry {
    pub(crate) fn new(jail: Arc<str>, rule: &IgnoreCommand) -> Inquiry {
        let answers =
            rule.cache.as_ref().map(|cache| Answers::new(&cache.key, cache.count, cache.time));
        Inquiry { jail, command: rule.command.as_str().into(), answers }
    }

    /// Returns which of these failures do not count, in their order. Failures with the same
    /// question share an answer.
    pub(crate) async fn excused(&mut self, tickets: Vec<Ticket>) -> Vec<bool> {
        let keys: Vec<String> = tickets.iter().map(|ticket| self.key(ticket)).collect();
        let mut known: HashMap<String, bool> = HashMap::new();
        let mut asking: JoinSet<Said> = JoinSet::new();
        let (mut asked, begun) = (0, Instant::now());
        for (key, ticket) in keys.iter().zip(tickets) {
            if known.contains_key(key) {
                continue;
            }
            let cached = self.answers.as_ref().and_then(|all| all.get(key, Instant::now()));
            // until it is said otherwise, they count
            known.insert(key.clone(), cached.unwrap_or(false));
            if cached.is_some() {
                continue;
            }
            if asking.len() >= AT_ONCE
                && let Some(Ok(said)) = asking.join_next().await
            {
                self.hear(said, &mut known);
            }
            if asked == MOST || begun.elapsed() >= TIMEOUT {
                log::error!("[{}] failures are counted unasked: ignorecommand is slow", self.jail);
                break;
            }
            asked += 1;
            let (command, key) = (Arc::clone(&self.command), key.clone());
            asking.spawn(async move {
                let answer = ask(&command, &ticket).await.map_err(|error| {
                    let whom = ticket.prefix.map(|prefix| Shown(prefix).to_string());
                    format!("ignorecommand of {} failed: {error}", whom.unwrap_or_default())
                });
                (key, answer)
            });
        }
        while let Some(said) = asking.join_next().await {
            if let Ok(said) = said {
                self.hear(said, &mut known);
            }
        }
        keys.iter().map(|key| known.get(key).copied().unwrap_or(false)).collect()
    }

    /// Returns what tells a question from others.
    fn key(&self, ticket: &Ticket) -> String {
        match &self.answers {
            Some(answers) => answers.key(ticket),
            None => question(&self.command, ticket),
        }
    }

    /// Takes an answer in.
    fn hear(&mut self, (key, answer): Said, known: &mut HashMap<String, bool>) {
        match answer {
            Ok(excused) => {
                if let Some(answers) = &mut self.answers {
                    answers.set(key.clone(), excused, Instant::now());
                }
                known.insert(key, excused);
            }
            Err(error) => log::error!("[{}] {error}", self.jail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(user: &str) -> Ticket {
        Ticket {
            prefix: Some("192.0.2.1/32".parse().unwrap()),
            fields: [("user".to_owned(), user.to_owned())].into(),
            ..Ticket::default()
        }
    }

    #[tokio::test]
    async fn each_failure_is_asked_about_with_its_own_fields() {
        let command = "echo <F-USER> >> FILE; test <F-USER> = good";
        let folder = tempfile::tempdir().unwrap();
        let asked = folder.path().join("asked");
        let command = command.replace("FILE", &asked.display().to_string());
        let rule = IgnoreCommand { command, cache: None };
        let mut inquiry = Inquiry::new("door".into(), &rule);
        let tickets = ["evil", "evil", "good", "evil", "good"].map(ticket).to_vec();
        let excused = inquiry.excused(tickets).await;
        assert_eq!(excused, [false, false, true, false, true]);
        let asked = std::fs::read_to_string(asked).unwrap();
        assert_eq!(asked.lines().count(), 2, "the same question is asked once: {asked}");
    }

    #[tokio::test]
    async fn no_answer_is_no_pardon_and_keeps_nobody_elses_away() {
        let command = "test <F-USER> = 19 && exit 0; exit 7".to_owned();
        let rule = IgnoreCommand { command, cache: None };
        let mut inquiry = Inquiry::new("door".into(), &rule);
        let tickets: Vec<Ticket> = (0..20).map(|number| ticket(&number.to_string())).collect();
        let excused = inquiry.excused(tickets).await;
        assert_eq!((excused[..19].to_vec(), excused[19]), (vec![false; 19], true));
    }
}
