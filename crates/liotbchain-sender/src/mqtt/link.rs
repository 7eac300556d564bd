//! One connection to the broker: bytes out of packets, packets out of bytes, in bounded memory.
//!
//! Only the packets of `rumqttc` are used, not its event loop: a PUBACK must go to the connection that its message came
//! by or to none, and a subscription must be sent although the broker says that it remembers one.

use std::{future, time::Duration};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use url::Host;

use super::{
    config::{Login, MqttConfig, Version},
    fault::MqttFault,
    message::Message,
    tls,
    topic::Topics,
    v4, v5,
};

/// Bytes, without type and size, of the largest packet that is read whole; what is larger cannot hold a reading that fits anywhere.
const PACKET_SIZE_MAX: usize = 256 << 10;
/// Bytes to read at a time.
const READ_SIZE: usize = 64 << 10;
/// For how long the broker may take no byte, or not answer when it has to.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What stands under the status topic while the sender is connected and subscribed.
pub(super) const STATUS_ONLINE: &str = "online";
/// What stands there otherwise.
pub(super) const STATUS_OFFLINE: &str = "offline";

// Packets of the client's own have ids of the client's own; these are the only ones, and one of each is on its way.
pub(super) const SUBSCRIBE_PACKET_ID: u16 = 1;
pub(super) const STATUS_PACKET_ID: u16 = 2;

/// What goes to the broker.
pub(super) enum Command<'a> {
    Connect(&'a Hello),
    Subscribe(&'a Topics),
    /// Retained.
    Status {
        topic: &'a str,
        text: &'static str,
    },
    /// The message with this packet id is on the disk, or can never be.
    Ack(u16),
    Ping,
    Disconnect,
}

/// Who connects, and how.
pub(super) struct Hello {
    pub client_id: String,
    pub keep_alive_s: u16,
    pub login: Option<Login>,
    /// Where the broker is to say so when the sender is gone. A visitor that leaves nothing behind has none.
    pub status_topic: Option<String>,
}

impl Hello {
    /// Whether the broker is to keep a session.
    pub fn is_lasting(&self) -> bool {
        self.status_topic.is_some()
    }
}

/// What comes from the broker.
pub(super) enum Event {
    Welcome(Welcome),
    Refused(MqttFault),
    /// For each filter the quality that is granted, or why none is.
    Subscribed(Vec<Result<u8, String>>),
    Message(Message),
    /// A message that was not read.
    Oversized {
        packet_id: Option<u16>,
        topic: String,
        size: usize,
    },
    Ended(MqttFault),
    Nothing,
}

/// The broker's answer to who may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Welcome {
    /// It says that it remembers the sender.
    pub session_present: bool,
    /// Seconds of silence that it allows, where these are not those that were asked for.
    pub keep_alive_s: Option<u16>,
    /// Seconds for which it keeps the session, where these are not those that were asked for.
    pub session_expiry_s: Option<u32>,
}

pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection.
pub(super) struct Link {
    stream: Box<dyn Duplex>,
    version: Version,
    incoming: BytesMut,
    outgoing: BytesMut,
    /// Bytes of an oversized message that are still to be passed over, and what to say then.
    passing: Option<(usize, Event)>,
}

impl Link {
    /// Connects, with TLS where it is asked for. Nothing of MQTT was said yet.
    pub async fn open(config: &MqttConfig) -> Result<Self, MqttFault> {
        let stream = timeout(ANSWER_TIMEOUT, connect(config));
        let stream = stream.await.map_err(|_| MqttFault::Silent(ANSWER_TIMEOUT))??;
        Ok(Self::new(stream, config.version))
    }

    /// Takes a connection that stands.
    pub fn new(stream: Box<dyn Duplex>, version: Version) -> Self {
        let (incoming, outgoing) = (BytesMut::new(), BytesMut::new());
        Self { stream, version, incoming, outgoing, passing: None }
    }

    /// Introduces the sender, and returns the answer.
    pub async fn greet(&mut self, hello: &Hello) -> Result<Welcome, MqttFault> {
        self.put(&Command::Connect(hello))?;
        self.flush().await?;
        let answer = timeout(ANSWER_TIMEOUT, self.first()).await;
        match answer.map_err(|_| MqttFault::Silent(ANSWER_TIMEOUT))? {
            Ok(Event::Welcome(welcome)) => Ok(welcome),
            Ok(Event::Refused(fault)) => Err(fault),
            Ok(_) => Err(MqttFault::NotMqtt("another packet came before the answer".to_owned())),
            Err(MqttFault::Malformed(problem)) => Err(MqttFault::NotMqtt(problem)),
            Err(fault) => Err(fault),
        }
    }

    /// Returns the answer to the introduction. Whatever else listens at a port is told from a broker by its first byte:
    /// it may never send as much as a packet would have.
    async fn first(&mut self) -> Result<Event, MqttFault> {
        const ANSWER: u8 = 0x20;
        match self.read().await {
            Ok(()) if self.incoming.first() == Some(&ANSWER) => self.next().await,
            Ok(()) => {
                let text =
                    String::from_utf8_lossy(&self.incoming[..self.incoming.len().min(16)]).into_owned();
                Err(MqttFault::NotMqtt(format!("it says {text:?}")))
            }
            Err(MqttFault::Closed | MqttFault::Broken(_)) => Err(MqttFault::ClosedAtOnce),
            Err(fault) => Err(fault),
        }
    }

    /// Puts a packet with those that go out next.
    pub fn put(&mut self, command: &Command<'_>) -> Result<(), MqttFault> {
        match self.version {
            Version::V5 => v5::encode(command, &mut self.outgoing),
            Version::V311 => v4::encode(command, &mut self.outgoing),
        }
    }

    /// Sends what was put.
    pub async fn flush(&mut self) -> Result<(), MqttFault> {
        let Self { stream, outgoing, .. } = self;
        let send = async {
            stream.write_all_buf(outgoing).await?;
            stream.flush().await
        };
        match timeout(ANSWER_TIMEOUT, send).await {
            Ok(sent) => sent.map_err(MqttFault::Broken),
            Err(_) => Err(MqttFault::Silent(ANSWER_TIMEOUT)),
        }
    }

    /// Returns what comes next. Nothing is lost where this is given up while it waits.
    pub async fn next(&mut self) -> Result<Event, MqttFault> {
        loop {
            if let Some(event) = self.next_here()? {
                return Ok(event);
            }
            self.read().await?;
        }
    }

    /// Looks at nothing that comes, and returns when the connection has ended. It reads as much as a packet may have, since
    /// the end comes behind what came before it. Nothing is lost where this is given up.
    pub async fn end(&mut self) -> MqttFault {
        while self.incoming.len() < PACKET_SIZE_MAX {
            if let Err(fault) = self.read().await {
                return fault;
            }
        }
        future::pending().await
    }

    async fn read(&mut self) -> Result<(), MqttFault> {
        self.incoming.reserve(READ_SIZE);
        match self.stream.read_buf(&mut self.incoming).await {
            Ok(0) => Err(MqttFault::Closed),
            Ok(_) => Ok(()),
            Err(error) => Err(MqttFault::Broken(error)),
        }
    }

    /// Returns what came already, if anything.
    pub fn next_here(&mut self) -> Result<Option<Event>, MqttFault> {
        if self.passing.is_none()
            && let Some((start, size)) = self.fixed_header()
            && size > PACKET_SIZE_MAX
        {
            // No decoder may see any of it: they know no limit.
            let Some(passing) = self.oversized(start, size)? else { return Ok(None) };
            self.passing = Some(passing);
        }
        if let Some((left, _)) = &mut self.passing {
            let passed = (*left).min(self.incoming.len());
            self.incoming.advance(passed);
            *left -= passed;
            return Ok(self.passing.take_if(|(left, _)| *left == 0).map(|(_, event)| event));
        }
        match self.version {
            Version::V5 => v5::decode(&mut self.incoming),
            Version::V311 => v4::decode(&mut self.incoming),
        }
    }

    /// Returns how many bytes say what the next packet is and how large, and how many follow them, once these are here.
    /// Both versions begin a packet alike.
    fn fixed_header(&self) -> Option<(usize, usize)> {
        let mut size = 0;
        for (index, &digit) in self.incoming.iter().skip(1).take(4).enumerate() {
            size |= usize::from(digit & 0x7f) << (7 * index);
            if digit & 0x80 == 0 {
                return Some((index + 2, size));
            }
        }
        None
    }

    /// Returns how many bytes of a message that is too large are to be passed over, and what it was, once its topic and
    /// its packet id are here. They stand in the same place in both versions.
    fn oversized(&self, start: usize, size: usize) -> Result<Option<(usize, Event)>, MqttFault> {
        const PUBLISH: u8 = 3;
        let first = self.incoming[0];
        if first >> 4 != PUBLISH {
            return Err(MqttFault::Malformed(format!("a packet of type {} with {size} bytes", first >> 4)));
        }
        let Some((topic_size, rest)) = self.incoming[start..].split_at_checked(2) else { return Ok(None) };
        let topic_size = usize::from(u16::from_be_bytes([topic_size[0], topic_size[1]]));
        let Some((topic, rest)) = rest.split_at_checked(topic_size) else { return Ok(None) };
        let Some(&[high, low]) = rest.get(..2) else { return Ok(None) };
        let packet_id = (first & 0b0110 != 0).then_some(u16::from_be_bytes([high, low]));
        let topic = String::from_utf8_lossy(topic).into_owned();
        Ok(Some((start + size, Event::Oversized { packet_id, topic, size })))
    }
}

async fn connect(config: &MqttConfig) -> Result<Box<dyn Duplex>, MqttFault> {
    let (host, port) = (&config.broker.host, config.broker.port);
    let stream = match host {
        Host::Domain(name) => TcpStream::connect((name.as_str(), port)).await,
        Host::Ipv4(address) => TcpStream::connect((*address, port)).await,
        Host::Ipv6(address) => TcpStream::connect((*address, port)).await,
    };
    let stream = stream.map_err(MqttFault::Unreachable)?;
    stream.set_nodelay(true).map_err(MqttFault::Unreachable)?;
    Ok(match &config.tls {
        Some(tls) => Box::new(tls::connect(tls.clone(), host, stream).await?),
        None => Box::new(stream),
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    fn link(version: Version) -> (Link, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        (Link::new(Box::new(ours), version), theirs)
    }

    /// A message of QoS 1 under the topic `a/pi` with packet id 7.
    fn publish(version: Version, payload_size: usize) -> Vec<u8> {
        let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        let mut body = vec![0, 4, b'a', b'/', b'p', b'i', 0, 7];
        body.extend_from_slice(properties);
        body.resize(body.len() + payload_size, b'1');
        let mut packet = vec![0x32];
        let mut size = body.len();
        while size > 0x7f {
            packet.push(u8::try_from(size & 0x7f).unwrap() | 0x80);
            size >>= 7;
        }
        packet.push(u8::try_from(size).unwrap());
        packet.extend(body);
        packet
    }

    #[tokio::test]
    async fn a_message_that_is_too_large_is_passed_over_and_named() {
        for version in [Version::V5, Version::V311] {
            let (mut link, mut broker) = link(version);
            let send = async {
                broker.write_all(&publish(version, 3 << 20)).await.unwrap();
                broker.write_all(&publish(version, 2)).await.unwrap();
                broker
            };
            let receive = async {
                let Event::Oversized { packet_id, topic, size } = link.next().await.unwrap() else {
                    panic!()
                };
                assert_eq!((packet_id, topic.as_str()), (Some(7), "a/pi"));
                assert!(size > 3 << 20);
                assert!(link.incoming.capacity() <= 2 * PACKET_SIZE_MAX, "the message was kept");
                let Event::Message(message) = link.next().await.unwrap() else { panic!() };
                assert_eq!(&message.payload[..], b"11");
            };
            tokio::join!(send, receive);
        }
    }

    #[tokio::test]
    async fn a_message_of_any_size_is_read_or_passed_over() {
        for version in [Version::V5, Version::V311] {
            let head_size = if version == Version::V5 { 9 } else { 8 };
            for size in PACKET_SIZE_MAX - 4..=PACKET_SIZE_MAX + 1 {
                let (mut link, mut broker) = link(version);
                broker.write_all(&publish(version, size - head_size)).await.unwrap();
                broker.write_all(&publish(version, 2)).await.unwrap();
                match link.next().await.unwrap() {
                    Event::Message(message) => assert_eq!(message.payload.len(), size - head_size),
                    Event::Oversized { size: found, .. } => {
                        assert_eq!((found, size), (size, PACKET_SIZE_MAX + 1))
                    }
                    _ => panic!(),
                }
                assert!(matches!(link.next().await.unwrap(), Event::Message(it) if it.payload == "11"));
            }
        }
    }

    #[tokio::test]
    async fn a_message_that_is_too_large_may_be_cut_in_its_head() {
        for (version, cut) in
            [Version::V5, Version::V311].into_iter().flat_map(|it| (1..16).map(move |cut| (it, cut)))
        {
            let (mut link, mut broker) = link(version);
            let packet = publish(version, PACKET_SIZE_MAX + 9);
            let send = async {
                broker.write_all(&packet[..cut]).await.unwrap();
                tokio::task::yield_now().await;
                broker.write_all(&packet[cut..]).await.unwrap();
            };
            let (event, ()) = tokio::join!(biased; link.next(), send);
            assert!(matches!(event.unwrap(), Event::Oversized { packet_id: Some(7), .. }), "{cut}");
        }
    }

    #[tokio::test]
    async fn packets_come_whole_however_they_are_cut() {
        for version in [Version::V5, Version::V311] {
            let (mut link, mut broker) = link(version);
            let packets =
                [publish(version, 3), publish(version, PACKET_SIZE_MAX + 9), publish(version, 5)].concat();
            let send = async {
                for piece in packets.chunks(4099) {
                    broker.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                broker
            };
            let receive = async {
                let mut sizes = Vec::new();
                for _ in 0..3 {
                    sizes.push(match link.next().await.unwrap() {
                        Event::Message(message) => message.payload.len(),
                        Event::Oversized { .. } => 0,
                        _ => panic!(),
                    });
                }
                assert_eq!(sizes, [3, 0, 5]);
            };
            tokio::join!(send, receive);
        }
    }

    #[tokio::test]
    async fn other_packets_of_that_size_end_the_connection() {
        let (mut link, mut broker) = link(Version::V5);
        broker.write_all(&[0x20, 0xff, 0xff, 0xff, 0x7f, 0, 0]).await.unwrap();
        assert!(matches!(link.next().await, Err(MqttFault::Malformed(_))));
    }

    #[tokio::test]
    async fn a_web_server_is_told_from_a_broker() {
        let hello = Hello { client_id: "x".to_owned(), keep_alive_s: 30, login: None, status_topic: None };
        for version in [Version::V5, Version::V311] {
            let (mut link, mut server) = link(version);
            server.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            assert!(matches!(link.greet(&hello).await, Err(MqttFault::NotMqtt(_))));
        }
    }

    #[tokio::test]
    async fn a_broker_of_version_3_names_the_setting() {
        let hello = Hello { client_id: "x".to_owned(), keep_alive_s: 30, login: None, status_topic: None };
        let (mut link, mut broker) = link(Version::V5);
        broker.write_all(&[0x20, 2, 0, 1]).await.unwrap();
        assert!(matches!(link.greet(&hello).await, Err(MqttFault::Version("3.1.1"))));
    }

    #[tokio::test]
    async fn the_session_is_to_last_for_ever_and_what_the_broker_makes_of_it_is_heard() {
        let hello = Hello {
            client_id: "x".to_owned(),
            keep_alive_s: 30,
            login: None,
            status_topic: Some("status".to_owned()),
        };
        let (mut link, mut broker) = link(Version::V5);
        broker.write_all(&[0x20, 8, 0, 0, 5, 0x11, 0, 0, 0, 60]).await.unwrap();
        let welcome = link.greet(&hello).await.unwrap();
        assert_eq!(welcome.session_expiry_s, Some(60));
        let mut connect = [0; 64];
        let size = broker.read(&mut connect).await.unwrap();
        let never = [0x11, 0xff, 0xff, 0xff, 0xff];
        assert!(connect[..size].windows(never.len()).any(|it| it == never));
    }
}
