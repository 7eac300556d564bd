//! From what a broker delivers to what the gateway takes, whatever the version of MQTT.

use bytes::Bytes;

use super::topic::{TopicError, Topics};
use crate::{
    intake::{Form, IntakeError, decode},
    reading::Reading,
};

/// Messages that are taken into one commit, and that the broker may send ahead.
pub(super) const MESSAGES_MAX: usize = 500;

/// A message as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// By what it is acknowledged. At quality 0 nobody waits for that.
    pub packet_id: Option<u16>,
    pub topic: String,
    pub payload: Bytes,
    /// It was stored by the broker under the topic, and says nothing new.
    pub is_retained: bool,
    /// From the properties of version 5.
    pub reading_id: Option<String>,
    pub content_type: Option<String>,
}

/// Why a message can never become a reading, however often it comes.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("the topic names no device: {0}")]
    Topic(#[from] TopicError),
    #[error(transparent)]
    Payload(#[from] IntakeError),
    #[error("it has {0} bytes")]
    TooLarge(usize),
    /// It would be taken again at each connection.
    #[error("it is retained")]
    Retained,
}

impl Unusable {
    /// Returns the word under which such messages are counted.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Topic(_) => "topic",
            Self::Payload(error) => error.code(),
            Self::TooLarge(_) => "too_large",
            Self::Retained => "retained",
        }
    }
}

impl Message {
    /// Makes readings of it.
    ///
    /// # Errors
    ///
    /// [`Unusable`] where nothing can be made of it, now or later.
    pub fn readings(&self, topics: &Topics) -> Result<Vec<Reading>, Unusable> {
        if self.is_retained {
            return Err(Unusable::Retained);
        }
        let device = topics.device(&self.topic)?;
        Ok(decode(&self.payload, self.form(), Some(&device), self.reading_id.as_deref())?)
    }

    /// A message says what it is by version 5 only. JSON of one reading or a list is what it is where it says nothing,
    /// or what devices say of anything.
    fn form(&self) -> Form {
        let content_type = self.content_type.as_deref().unwrap_or_default();
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        match essence.to_ascii_lowercase().as_str() {
            "application/senml+json" => Form::Senml,
            "application/x-ndjson" | "application/ndjson" => Form::Lines,
            _ => Form::Json,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Body;

    fn message(topic: &str, payload: &'static str) -> Message {
        Message {
            packet_id: Some(1),
            topic: topic.to_owned(),
            payload: Bytes::from_static(payload.as_bytes()),
            is_retained: false,
            reading_id: None,
            content_type: None,
        }
    }

    fn topics() -> Topics {
        Topics::parse("liotbchain/v1/+/+/up=4").unwrap()
    }

    #[test]
    fn the_payload_is_kept_byte_for_byte() {
        let readings =
            message("liotbchain/v1/home/pi-1/up", " {\"t\" : 2.10, \"u\":\"°C\"}\n").readings(&topics());
        let [reading] = &readings.unwrap()[..] else { panic!() };
        assert_eq!(reading.device.as_str(), "pi-1");
        assert_eq!(reading.identity, None);
        assert_eq!(reading.body, Body::Plain("{\"t\" : 2.10, \"u\":\"°C\"}".to_owned()));
    }

    #[test]
    fn the_topic_names_the_device_whatever_the_payload_says() {
        let readings =
            message("liotbchain/v1/home/pi-1/up", r#"{"device":"other","t":1}"#).readings(&topics());
        assert_eq!(readings.unwrap()[0].device.as_str(), "pi-1");
    }

    #[test]
    fn the_user_property_tells_readings_apart() {
        let told =
            Message { reading_id: Some("a7".to_owned()), ..message("liotbchain/v1/h/p/up", r#"{"t":1}"#) };
        let again = told.readings(&topics()).unwrap();
        assert!(again[0].identity.is_some());
        assert_eq!(again, told.readings(&topics()).unwrap());
        let other = Message { reading_id: Some("a8".to_owned()), ..told };
        assert_ne!(other.readings(&topics()).unwrap()[0].identity, again[0].identity);
    }

    #[test]
    fn several_readings_may_come_in_one_message() {
        let list = message("liotbchain/v1/h/p/up", r#"[{"t":1},{"t":2}]"#);
        assert_eq!(list.readings(&topics()).unwrap().len(), 2);
        let content_type = Some("application/x-ndjson; charset=utf-8".to_owned());
        let lines = Message { content_type, ..message("liotbchain/v1/h/p/up", "{\"t\":1}\n{\"t\":2}") };
        assert_eq!(lines.readings(&topics()).unwrap().len(), 2);
    }

    #[test]
    fn a_senml_pack_says_what_it_is() {
        let pack =
            message("liotbchain/v1/h/p/up", r#"[{"bn":"urn:dev:ow:10e2073a01080063:","u":"Cel","v":23.1}]"#);
        let pack = Message { content_type: Some("application/senml+json".to_owned()), ..pack };
        let readings = pack.readings(&topics()).unwrap();
        assert!(matches!(&readings[..], [Reading { body: Body::Plain(text), .. }] if text.starts_with('[')));
    }

    #[test]
    fn says_why_a_message_is_of_no_use() {
        let reason = |message: Message| message.readings(&topics()).unwrap_err().reason();
        assert_eq!(reason(message("liotbchain/v1/home/pi-1/status", "{}")), "topic");
        assert_eq!(reason(message("liotbchain/v1/home/pi-1/up", "21.5 °C")), "not_json");
        assert_eq!(reason(message("liotbchain/v1/home/pi-1/up", "")), "not_json");
        assert_eq!(reason(message("liotbchain/v1/home/pi-1/up", "[]")), "empty_list");
        let retained = Message { is_retained: true, ..message("liotbchain/v1/home/pi-1/up", "{}") };
        assert_eq!(reason(retained), "retained");
        let told = Message { reading_id: Some(String::new()), ..message("liotbchain/v1/h/p/up", "{}") };
        assert_eq!(reason(told), "bad_idempotency_key");
    }
}
