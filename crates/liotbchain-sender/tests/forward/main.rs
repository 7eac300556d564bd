//! Forwarding over real sockets and a real outbox: to the real receiver, and to receivers of this test's own, which lie,
//! refuse, break off or say nothing, as the real one cannot be asked to.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod acknowledgement;
mod failure;
mod gateway;
mod order;
mod original;
mod real;
mod receiver;
mod refusal;
mod request;
