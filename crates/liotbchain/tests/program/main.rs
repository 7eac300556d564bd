//! Runs the program as somebody at a terminal does, each time in a folder and an environment of its own.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod chain;
mod completions;
mod demo;
mod keys;
mod manual;
mod running;
mod servers;
