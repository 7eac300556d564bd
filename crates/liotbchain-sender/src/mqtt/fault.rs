//! Why there is no connection to the broker, or no longer one, and what cures it.

use std::{io, time::Duration};

/// What ends a connection, or keeps it from being made. None holds the password.
#[derive(Debug, thiserror::Error)]
pub enum MqttFault {
    /// Nobody listens there, or the name or the way is not known.
    #[error("the broker cannot be reached: {0}: check that it runs and that MQTT_URL names it")]
    Unreachable(io::Error),
    /// The port takes connections and says nothing.
    #[error("the broker gave no answer within {} s: check that MQTT_URL names an MQTT broker", .0.as_secs())]
    Silent(Duration),
    /// The other side does not speak TLS, or is not who it should be.
    #[error("TLS with the broker fails: {problem}: {cure}")]
    Tls {
        /// What rustls says.
        problem: String,
        /// What to do.
        cure: &'static str,
    },
    /// What came is no MQTT.
    #[error(
        "what answers at MQTT_URL is no MQTT broker ({0}): check host and port; a port with TLS needs mqtts://"
    )]
    NotMqtt(String),
    /// It hung up instead of an answer.
    #[error(
        "the broker closed the connection at once: check MQTT_URL (a port with TLS needs mqtts://) and MQTT_VERSION"
    )]
    ClosedAtOnce,
    /// User, password, or right to connect.
    #[error("the broker refuses the user: check MQTT_USER and MQTT_PASSWORD, and the broker's list of users")]
    Login,
    /// It speaks another version.
    #[error("the broker does not speak this version of MQTT: set MQTT_VERSION to {0}")]
    Version(&'static str),
    /// It does not like the client's id.
    #[error("the broker refuses the client id: set another MQTT_CLIENT_ID")]
    ClientId,
    /// It refuses the connection for another reason.
    #[error("the broker refuses the connection: {0}")]
    Refused(String),
    /// It refuses every subscription.
    #[error(
        "the broker refuses the subscription to {filter:?} ({reason}): allow MQTT_USER to read it, or change MQTT_TOPICS"
    )]
    Subscription {
        /// The first that it refuses.
        filter: String,
        /// What it says of it.
        reason: String,
    },
    /// It ended the connection, and said why.
    #[error("the broker ended the connection: {0}")]
    Ended(String),
    /// Another client has the same id.
    #[error("another client took over the session: give each sender an MQTT_CLIENT_ID of its own")]
    TakenOver,
    /// The connection ended.
    #[error("the connection to the broker ended")]
    Closed,
    /// The connection broke.
    #[error("the connection to the broker broke: {0}")]
    Broken(io::Error),
    /// The broker breaks the rules of MQTT.
    #[error("the broker sent what MQTT does not allow: {0}")]
    Malformed(String),
}
