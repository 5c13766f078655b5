//! Asks an operator's command whether an offender is to be ignored, and remembers what it said.

use std::{
    collections::{HashMap, VecDeque},
    process::ExitStatus,
    time::{Duration, Instant},
};

use super::{TIMEOUT, Ticket, shell, tags};

/// Runs the command: 0 is yes, 1 is no.
///
/// # Errors
/// Why there is no answer, escaped.
pub async fn ask(command: &str, ticket: &Ticket) -> Result<bool, String> {
    let script = tags::fill(command, ticket.family(), ticket);
    let no = |status: &ExitStatus| status.code() == Some(1);
    match shell::run(&script, TIMEOUT).await {
        Ok(()) => Ok(true),
        Err(shell::Failed::Status { status, .. }) if no(&status) => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

/// Returns the question that a command asks, as mere text: the same text has the same answer.
#[must_use]
pub fn question(command: &str, ticket: &Ticket) -> String {
    tags::text(command, ticket.family(), ticket)
}

/// What was said lately, the oldest first forgotten.
#[derive(Debug)]
pub struct Answers {
    key: String,
    most: usize,
    time: Duration,
    known: HashMap<String, (bool, Instant)>,
    order: VecDeque<String>,
}

impl Answers {
    /// Keeps `most` answers for `time`; offences with the same text for `key` share one.
    #[must_use]
    pub fn new(key: &str, most: usize, time: Duration) -> Answers {
        Answers { key: key.to_owned(), most, time, known: HashMap::new(), order: VecDeque::new() }
    }

    /// Returns the key of an offence.
    #[must_use]
    pub fn key(&self, ticket: &Ticket) -> String {
        tags::text(&self.key, ticket.family(), ticket)
    }

    /// Returns what was said of this key, if it still counts.
    #[must_use]
    pub fn get(&self, key: &str, now: Instant) -> Option<bool> {
        let (answer, said) = self.known.get(key)?;
        (now.saturating_duration_since(*said) < self.time).then_some(*answer)
    }

    /// Remembers an answer.
    pub fn set(&mut self, key: String, answer: bool, now: Instant) {
        if self.known.insert(key.clone(), (answer, now)).is_some() {
            self.order.retain(|other| *other != key);
        }
        self.order.push_back(key);
        while self.order.len() > self.most {
            self.order.pop_front().map(|oldest| self.known.remove(&oldest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_few_and_young() {
        let mut answers = Answers::new("<F-USER>@<ip>", 2, Duration::from_secs(60));
        let ticket = Ticket {
            prefix: Some("192.0.2.1/32".parse().unwrap()),
            fields: [("user".to_owned(), "$x".to_owned())].into(),
            ..Ticket::default()
        };
        let key = answers.key(&ticket);
        assert_eq!(key, "$x@192.0.2.1");
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(answers.get(&key, start), None);
        answers.set(key.clone(), true, start);
        answers.set("b".to_owned(), false, at(30));
        assert_eq!(answers.get(&key, at(59)), Some(true));
        assert_eq!(answers.get(&key, at(60)), None, "too old");
        assert_eq!(answers.get("b", at(60)), Some(false));
        answers.set(key.clone(), false, at(61));
        answers.set("c".to_owned(), true, at(62));
        assert_eq!(answers.get("b", at(62)), None, "no room: the oldest went");
        assert_eq!(answers.get(&key, at(62)), Some(false));
        assert_eq!((answers.known.len(), answers.order.len()), (2, 2));
    }

    #[tokio::test]
    async fn zero_is_yes_and_one_is_no() {
        let ticket = Ticket { prefix: Some("192.0.2.1/32".parse().unwrap()), ..Ticket::default() };
        assert_eq!(ask("test <ip> = 192.0.2.1", &ticket).await, Ok(true));
        assert_eq!(ask("test <ip> = 192.0.2.2", &ticket).await, Ok(false));
        assert_eq!(ask("exit 2", &ticket).await, Err("exit status: 2".to_owned()));
    }
}
