//! The packets of MQTT 3.1.1.

use bytes::{Bytes, BytesMut};
use rumqttc_v4::mqttbytes::{
    Error, QoS,
    v4::{
        Connect, ConnectAuth, ConnectReturnCode, LastWill, Packet, PubAck, Publish, Subscribe,
        SubscribeFilter, SubscribeReasonCode,
    },
};

use super::{
    fault::MqttFault,
    link::{Command, Event, STATUS_OFFLINE, STATUS_PACKET_ID, SUBSCRIBE_PACKET_ID, Welcome},
    message::Message,
};

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
            Packet::Connect(Connect {
                keep_alive: hello.keep_alive_s,
                client_id: hello.client_id.clone(),
                clean_session: !hello.is_lasting(),
                last_will: hello
                    .status_topic
                    .as_ref()
                    .map(|topic| LastWill::new(topic, STATUS_OFFLINE, QoS::AtLeastOnce, true)),
                auth,
            })
        }
        Command::Subscribe(topics) => {
            let filters = topics.filters().map(|it| SubscribeFilter::new(it.to_owned(), QoS::AtLeastOnce));
            Packet::Subscribe(Subscribe { pkid: SUBSCRIBE_PACKET_ID, filters: filters.collect() })
        }
        Command::Status { topic, text } => {
            let mut publish = Publish::new(*topic, QoS::AtLeastOnce, *text);
            publish.retain = true;
            publish.pkid = STATUS_PACKET_ID;
            Packet::Publish(publish)
        }
        Command::Ack(id) => Packet::PubAck(PubAck::new(*id)),
        Command::Ping => Packet::PingReq,
        Command::Disconnect => Packet::Disconnect,
    };
    packet.write(out, usize::MAX).map_err(|error| MqttFault::Malformed(error.to_string()))?;
    Ok(())
}

/// Reads a packet, where a whole one has come. Whoever calls this has looked at its size.
pub(super) fn decode(incoming: &mut BytesMut) -> Result<Option<Event>, MqttFault> {
    let packet = match Packet::read(incoming, usize::MAX) {
        Ok(packet) => packet,
        Err(Error::InsufficientBytes(_)) => return Ok(None),
        // Brokers send codes of version 5 here.
        Err(Error::InvalidSubscribeReasonCode(code)) => {
            return Ok(Some(Event::Subscribed(vec![Err(format!("code {code:#x}"))])));
        }
        Err(error) => return Err(MqttFault::Malformed(error.to_string())),
    };
    Ok(Some(match packet {
        Packet::ConnAck(answer) => match answer.code {
            ConnectReturnCode::Success => Event::Welcome(Welcome {
                session_present: answer.session_present,
                keep_alive_s: None,
                session_expiry_s: None,
            }),
            ConnectReturnCode::RefusedProtocolVersion => Event::Refused(MqttFault::Version("5")),
            ConnectReturnCode::BadClientId => Event::Refused(MqttFault::ClientId),
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
                Event::Refused(MqttFault::Login)
            }
            ConnectReturnCode::ServiceUnavailable => {
                Event::Refused(MqttFault::Refused("it is not available at present".to_owned()))
            }
        },
        Packet::SubAck(answer) => Event::Subscribed(
            answer
                .return_codes
                .into_iter()
                .map(|code| match code {
                    SubscribeReasonCode::Success(qos) => Ok(qos as u8),
                    SubscribeReasonCode::Failure => Err("code 0x80".to_owned()),
                })
                .collect(),
        ),
        Packet::Publish(publish) => {
            if publish.qos == QoS::ExactlyOnce {
                return Err(MqttFault::Malformed("a message of QoS 2".to_owned()));
            }
            Event::Message(Message {
                packet_id: (publish.qos == QoS::AtLeastOnce).then_some(publish.pkid),
                topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                payload: publish.payload,
                is_retained: publish.retain,
                reading_id: None,
                content_type: None,
            })
        }
        _ => Event::Nothing,
    }))
}
