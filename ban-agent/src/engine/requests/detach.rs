//! `detach`: ends enforcement and the agent, at once.

use tokio::sync::oneshot;

use crate::{
    control::{Refusal, Reply},
    dataplane::DataPlane,
    engine::{Engine, Error, Leaving},
};

/// Takes the program off. Returns the answer to the operator, and the same for our own end.
pub(in crate::engine) fn detach(xdp: Box<dyn DataPlane>) -> (Reply, Result<(), Error>) {
    match xdp.detach().map_err(Error::from) {
        Ok(interfaces) => {
            let interfaces = interfaces.join(", ");
            log::info!("detached from {interfaces}; no ban is enforced any more");
            let message = "no ban is enforced any more, and the agent ends";
            (Reply::text(format!("detached from {interfaces}; {message}")), Ok(()))
        }
        Err(error) => {
            let (code, hint) = (error.code(), error.hint());
            let message = format!("not detached: {error}; the agent ends");
            (Reply::Error(Refusal { code, message, hint }), Err(error))
        }
    }
}

impl Engine {
    /// Takes the program off, answers `reply`, and ends.
    pub(super) fn detach(&mut self, reply: oneshot::Sender<Reply>) {
        self.leaving = Some(Leaving::Detach(reply));
    }

    /// Everything was detached while the agent hung: it ends, as it would have then.
    pub(in crate::engine) fn end_detached(&mut self) {
        self.leaving = Some(Leaving::Detached);
    }
}
