//! `resume`: lets jails ban again that their breaker has stopped.

use crate::{
    control::{Refusal, Reply},
    engine::Engine,
    event::{Event, What},
};

impl Engine {
    /// Lets stopped jails ban again.
    pub(in crate::engine) fn resume(&mut self, jail: Option<&str>) -> Reply {
        if let Some(jail) = jail
            && let Err(refusal) = self.known_holder(jail)
        {
            return Reply::Error(refusal);
        }
        let chosen =
            self.breakers.iter_mut().filter(|(name, _)| jail.is_none_or(|jail| jail == &***name));
        let mut resumed: Vec<&str> =
            chosen.filter_map(|(name, breaker)| breaker.resume().then_some(&**name)).collect();
        resumed.sort_unstable();
        let jails = resumed.iter().map(|jail| What::Resumed { jail: (*jail).into() });
        self.bus.publish(jails.map(Event::now).collect());
        if resumed.is_empty() {
            let message = match jail {
                Some(jail) => format!("the jail '{jail}' is not stopped"),
                None => "no jail is stopped".to_owned(),
            };
            return Reply::Error(Refusal { code: 1, message, hint: None });
        }
        Reply::text(format!("banning again: {}", resumed.join(", ")))
    }
}
