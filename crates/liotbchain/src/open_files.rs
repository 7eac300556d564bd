//! As many open files as the connections need: shells and services start programs with 1,024 or fewer, and a server that
//! has none left can neither take a connection to say so nor open its store again.

use crate::output::warn;

/// Files that a receiver has open beside its connections.
const OTHER_FILES: usize = 128;

/// Asks the system for the files of so many connections, and returns how many connections there can be.
pub fn make_room(connections_max: usize) -> usize {
    let wanted = connections_max.saturating_add(OTHER_FILES);
    let allowed = raise(wanted as u64).map_or(wanted, |allowed| usize::try_from(allowed).unwrap_or(wanted));
    if allowed >= wanted {
        return connections_max;
    }
    let connections = allowed.saturating_sub(OTHER_FILES).max(1);
    warn(
        &format!(
            "CONNECTIONS_MAX={connections_max} needs {wanted} open files and the system allows {allowed}: \
             {connections} connections will be taken at a time"
        ),
        Some("raise that limit (ulimit -n, or LimitNOFILE= in a systemd unit), or lower CONNECTIONS_MAX"),
    );
    connections
}

/// Returns how many files may be open; none where there is no limit.
#[cfg(unix)]
fn raise(wanted: u64) -> Option<u64> {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    let current = limit.current?;
    let raised = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if raised <= current {
        return Some(current);
    }
    limit.current = Some(raised);
    Some(if setrlimit(Resource::Nofile, limit).is_ok() { raised } else { current })
}

/// Elsewhere sockets are no files.
#[cfg(not(unix))]
fn raise(_wanted: u64) -> Option<u64> {
    None
}
