//! What ban-agent decides with: a line becomes a match, a match an offence, an offence a ban.
//!
//! Pure: no I/O, no threads, and time is an argument. The modules are stages in the order in which
//! data flows; a stage may use the data types of earlier stages, never their engines.
#![forbid(unsafe_code)]

pub mod arithmetic;
pub mod clock;
pub mod duration;
pub mod net;

pub mod filter;
pub mod jail;
pub mod ledger;
