//! The packets of MQTT 5.

use bytes::{Bytes, BytesMut};
use rumqttc_v5::mqttbytes::{
    Error, QoS,
    v5::{
        ConnAck, Connect, ConnectAuth, ConnectProperties, ConnectReturnCode, Disconnect,
        DisconnectReasonCode, LastWill, Packet, PubAck, Publish, RetainForwardRule, Subscribe,
        SubscribeFilter, SubscribeReasonCode,
    },
};

use super::{
    fault::MqttFault,
    link::{Command, Event, STATUS_OFFLINE, STATUS_PACKET_ID, SUBSCRIBE_PACKET_ID, Welcome},
    message::{MESSAGES_MAX, Message},
};

/// Asks the broker to keep what comes while the sender is away, however long that is: this number stands for ever.
const SESSION_NEVER_EXPIRES: u32 = u32::MAX;
/// Name of the user property that tells a device's readings apart.
const READING_ID: &str = "reading_id";

/// Writes a packet.
pub(super) fn encode(command: &Command<'_>, out: &mut BytesMut) -> Result<(), MqttFault> {
    let packet = match command {
        Command::Connect(hello) => {
            let login = hello.login.as_ref();
            let auth = login.map_or(ConnectAuth::None, |login| match login.password.as_ref() {
                None => ConnectAuth::Username { username: login.user.clone() },
                Some(password) => ConnectAuth::UsernamePassword {
                    username: login.user.clone(),
                    password: Bytes::from(password.reveal().to_owned()),
                },
            });
            let properties = ConnectProperties {
                session_expiry_interval: hello.is_lasting().then_some(SESSION_NEVER_EXPIRES),
                receive_maximum: u16::try_from(MESSAGES_MAX).ok(),
                ..ConnectProperties::new()
            };
            let connect = Connect {
                keep_alive: hello.keep_alive_s,
                client_id: hello.client_id.clone(),
                clean_start: !hello.is_lasting(),
                properties: Some(properties),
            };
            let will = hello.status_topic.as_ref();
            let will = will.map(|it| LastWill::new(it, STATUS_OFFLINE, QoS::AtLeastOnce, true, None));
            Packet::Connect(connect, will, auth)
        }
        Command::Subscribe(topics) => {
            let filters = topics.filters().map(|filter| SubscribeFilter {
                // A retained message would come again at each connection.
                retain_forward_rule: RetainForwardRule::Never,
                ..SubscribeFilter::new(filter, QoS::AtLeastOnce)
            });
            Packet::Subscribe(Subscribe {
                pkid: SUBSCRIBE_PACKET_ID,
                filters: filters.collect(),
                properties: None,
            })
        }
        Command::Status { topic, text } => {
            let mut publish = Publish::new(*topic, QoS::AtLeastOnce, *text, None);
            publish.retain = true;
            publish.pkid = STATUS_PACKET_ID;
            Packet::Publish(publish)
        }
        Command::Ack(id) => Packet::PubAck(PubAck::new(*id, None)),
        Command::Ping => Packet::PingReq,
        Command::Disconnect => Packet::Disconnect(Disconnect::new(DisconnectReasonCode::NormalDisconnection)),
    };
    packet.write(out, None).map_err(|error| MqttFault::Malformed(error.to_string()))?;
    Ok(())
}

/// Reads a packet, where a whole one has come. Whoever calls this has looked at its size.
pub(super) fn decode(incoming: &mut BytesMut) -> Result<Option<Event>, MqttFault> {
    // A broker that knows version 3 only refuses in its own words.
    if incoming.starts_with(&[0x20, 2, 0, 1]) {
        return Ok(Some(Event::Refused(MqttFault::Version("3.1.1"))));
    }
    let packet = match Packet::read(incoming, None) {
        Ok(packet) => packet,
        Err(Error::InsufficientBytes(_)) => return Ok(None),
        Err(error) => return Err(MqttFault::Malformed(error.to_string())),
    };
    Ok(Some(match packet {
        Packet::ConnAck(answer) => welcome(answer),
        Packet::SubAck(answer) => Event::Subscribed(
            answer
                .return_codes
                .into_iter()
                .map(|code| match code {
                    SubscribeReasonCode::Success(qos) => Ok(qos as u8),
                    other => Err(format!("{other:?}")),
                })
                .collect(),
        ),
        Packet::Publish(publish) => {
            if publish.qos == QoS::ExactlyOnce {
                return Err(MqttFault::Malformed("a message of QoS 2".to_owned()));
            }
            let properties = publish.properties.unwrap_or_default();
            let mut user_properties = properties.user_properties.into_iter();
            Event::Message(Message {
                packet_id: (publish.qos == QoS::AtLeastOnce).then_some(publish.pkid),
                topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                payload: publish.payload,
                is_retained: publish.retain,
                reading_id: user_properties.find(|(name, _)| name == READING_ID).map(|(_, value)| value),
                content_type: properties.content_type,
            })
        }
        Packet::Disconnect(bye) => Event::Ended(match bye.reason_code {
            DisconnectReasonCode::SessionTakenOver => MqttFault::TakenOver,
            reason => {
                let text = bye.properties.and_then(|properties| properties.reason_string);
                MqttFault::Ended(text.unwrap_or_else(|| format!("{reason:?}")))
            }
        }),
        _ => Event::Nothing,
    }))
}

fn welcome(answer: ConnAck) -> Event {
    let properties = answer.properties;
    match answer.code {
        ConnectReturnCode::Success => Event::Welcome(Welcome {
            session_present: answer.session_present,
            keep_alive_s: properties.as_ref().and_then(|properties| properties.server_keep_alive),
            session_expiry_s: properties
                .and_then(|properties| properties.session_expiry_interval)
                .filter(|seconds| *seconds != SESSION_NEVER_EXPIRES),
        }),
        ConnectReturnCode::RefusedProtocolVersion | ConnectReturnCode::UnsupportedProtocolVersion => {
            Event::Refused(MqttFault::Version("3.1.1"))
        }
        ConnectReturnCode::BadClientId | ConnectReturnCode::ClientIdentifierNotValid => {
            Event::Refused(MqttFault::ClientId)
        }
        ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
            Event::Refused(MqttFault::Login)
        }
        code => {
            let text = properties.and_then(|properties| properties.reason_string);
            Event::Refused(MqttFault::Refused(text.unwrap_or_else(|| format!("{code:?}"))))
        }
    }
}
