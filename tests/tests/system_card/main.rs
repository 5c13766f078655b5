//! The system ring's tests that need a network card and nothing besides: they also run in the
//! guests of the kernel ring.

mod attach;
mod hits;
mod hotplug;
mod life;
mod trial;
mod vlan;
