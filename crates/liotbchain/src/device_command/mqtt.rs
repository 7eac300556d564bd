//! Readings by MQTT 5: published with QoS 1 to a broker, kept until it acknowledged them.
//!
//! Each connection starts a session of its own. What was not acknowledged on the last one is published again, in its
//! order, from a list kept here: the client library forgets it where the broker lost the session. A gateway recognises
//! what it gets twice.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rumqttc_v5::mqttbytes::QoS;
use rumqttc_v5::mqttbytes::v5::{ConnectReturnCode, PubAckReason, PublishProperties};
use rumqttc_v5::{
    AsyncClient, ConnectionError, MqttOptions, NetworkOptions, PublishNotice, PublishNoticeError,
    PublishOptions, PublishResult,
};
use tokio::task::JoinSet;

use super::backoff::Backoff;
use super::run_name::RunName;
use super::source::{Reading, Source};
use super::tally::Tally;
use crate::Failure;
use crate::failure::Exit;
use crate::settings::Secret;
use crate::stop::Stop;

/// Publications on their way at most; a broker often allows fewer (Mosquitto 20), which the library heeds.
const ON_THE_WAY_MAX: u32 = 100;
/// A lost connection is noticed after one and a half times as many seconds.
const KEEP_ALIVE_S: u16 = 10;
/// How long an orderly end may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// A broker, and how to be let in.
pub struct Broker {
    pub host: String,
    pub port: u16,
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub site: String,
    pub run: RunName,
}

/// Readings on their way from a source to a broker.
pub struct Publisher {
    broker: Broker,
    source: Source,
    /// Most that may be on their way: never two of one device, or a connection that breaks could turn them round.
    window: usize,
    /// What is not acknowledged, in its order.
    kept: VecDeque<Reading>,
    /// Whether there is more to come.
    is_open: bool,
    tally: Arc<Tally>,
    stop: Stop,
}

/// The answers to what is kept, in its order, as far as it was published on this connection.
type Answers = VecDeque<Pin<Box<dyn Future<Output = Result<PublishResult, PublishNoticeError>> + Send>>>;

impl Publisher {
    /// Sets out to publish what comes from a source that names so many devices by turns.
    pub fn new(broker: Broker, source: Source, devices: u32, tally: Arc<Tally>, stop: Stop) -> Self {
        let window = devices.min(ON_THE_WAY_MAX) as usize;
        Self { broker, source, window, kept: VecDeque::new(), is_open: true, tally, stop }
    }

    /// Publishes until there is no more, or somebody asks to stop.
    ///
    /// # Errors
    ///
    /// Where the broker does not let this program in, or speaks no MQTT 5.
    pub async fn run(mut self, mut backoff: Backoff) -> Result<(), Failure> {
        loop {
            let acknowledged = self.tally.counts().acknowledged;
            let why = match self.connection().await? {
                ControlFlow::Break(()) => return Ok(()),
                ControlFlow::Continue(why) => why,
            };
            if self.tally.counts().acknowledged > acknowledged {
                backoff.reset();
            }
            self.tally.wait_for(why);
            tokio::select! {
                biased;
                () = self.stop.asked() => return Ok(()),
                () = tokio::time::sleep(backoff.pause(None)) => {}
            }
        }
    }

    /// Goes on for as long as one connection lasts; tells why it ended, where there is more to do.
    async fn connection(&mut self) -> Result<ControlFlow<(), String>, Failure> {
        let (client, mut events) =
            AsyncClient::builder(self.options()).capacity(ON_THE_WAY_MAX as usize).build();
        // It ends with this function, whatever happens.
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            loop {
                if let Err(error) = events.poll().await {
                    return error;
                }
            }
        });
        let mut answers = Answers::new();
        self.tally.send_again(self.kept.len());
        for reading in &self.kept {
            match self.publish(&client, reading).await {
                Ok(notice) => answers.push_back(Box::pin(notice.wait_async())),
                Err(why) => return Ok(ControlFlow::Continue(why)),
            }
        }
        let stop = self.stop.clone();
        let mut stopped = std::pin::pin!(stop.asked());
        loop {
            if self.kept.is_empty() && !self.is_open {
                let _ = client.disconnect().await;
                let _ = tokio::time::timeout(GOODBYE, driver.join_next()).await;
                return Ok(ControlFlow::Break(()));
            }
            let has_room = self.is_open && self.kept.len() < self.window;
            tokio::select! {
                biased;
                () = &mut stopped, if self.is_open => self.is_open = false,
                Some(ended) = driver.join_next() => {
                    let error = ended.unwrap_or(ConnectionError::RequestsDone);
                    return self.lost(&error).map(ControlFlow::Continue);
                }
                answer = async { answers.front_mut().expect("there is one").as_mut().await },
                    if !answers.is_empty() =>
                {
                    answers.pop_front();
                    if let Some(why) = self.answered(answer) {
                        // The order is kept by publishing all again that is not acknowledged.
                        return Ok(ControlFlow::Continue(why));
                    }
                }
                reading = self.source.next(), if has_room => {
                    let Some(reading) = reading? else {
                        self.is_open = false;
                        continue;
                    };
                    self.tally.send(1);
                    if reading.device.contains('/') {
                        self.tally.refuse(format_args!(
                            "the name {:?} cannot stand in an MQTT topic: leave out the /", reading.device
                        ));
                        continue;
                    }
                    let published = self.publish(&client, &reading).await;
                    self.kept.push_back(reading);
                    match published {
                        Ok(notice) => answers.push_back(Box::pin(notice.wait_async())),
                        Err(why) => return Ok(ControlFlow::Continue(why)),
                    }
                }
            }
        }
    }

    fn options(&self) -> MqttOptions {
        let Broker { host, port, user, password, run, .. } = &self.broker;
        let mut options = MqttOptions::new(format!("liotbchain-device-{run}"), (host.as_str(), *port));
        options.set_keep_alive(KEEP_ALIVE_S).set_clean_start(true);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        // Each of these setters replaces what another one set.
        match (user, password) {
            (Some(user), Some(password)) => {
                options.set_credentials(user, password.reveal().to_owned());
            }
            (Some(user), None) => {
                options.set_username(user);
            }
            (None, _) => {}
        }
        options
    }

    async fn publish(&self, client: &AsyncClient, reading: &Reading) -> Result<PublishNotice, String> {
        let topic = format!("liotbchain/v1/{}/{}/up", self.broker.site, reading.device);
        let mut options = PublishOptions::new(QoS::AtLeastOnce);
        if let Some(number) = reading.identity {
            let identity = self.broker.run.identity(number);
            let user_properties = vec![("reading_id".to_owned(), identity)];
            options = options.properties(PublishProperties { user_properties, ..Default::default() });
        }
        let published = client.publish_tracked(topic, reading.text.clone(), options).await;
        published.map_err(|error| format!("nothing can be published: {error}"))
    }

    /// Takes the answer to the oldest; tells why it must be published again, where it must.
    fn answered(&mut self, answer: Result<PublishResult, PublishNoticeError>) -> Option<String> {
        let answer = match answer {
            Ok(PublishResult::Qos1(answer)) => answer,
            Ok(_) => return Some("the broker answers to another QoS".to_owned()),
            Err(error) => return Some(error.to_string()),
        };
        let why = match answer.reason {
            PubAckReason::Success => {
                self.kept.pop_front();
                self.tally.acknowledge(1);
                return None;
            }
            // The broker has thrown it away.
            PubAckReason::NoMatchingSubscribers => return Some("no gateway has subscribed yet".to_owned()),
            PubAckReason::NotAuthorized => "the broker does not let this user write to its topic",
            PubAckReason::TopicNameInvalid => "the broker does not take its topic",
            PubAckReason::PayloadFormatInvalid => "the broker does not take its format",
            reason => return Some(format!("the broker answers {reason:?}")),
        };
        if let Some(reading) = self.kept.pop_front() {
            self.tally.refuse(format_args!("a reading of {} is refused: {why}", reading.device));
        }
        None
    }

    /// Tells why a connection was lost.
    ///
    /// # Errors
    ///
    /// Where it makes no sense to try again.
    fn lost(&self, error: &ConnectionError) -> Result<String, Failure> {
        let Broker { host, port, .. } = &self.broker;
        let ConnectionError::ConnectionRefused(code) = error else {
            return Ok(format!("the broker {host}:{port} cannot be reached: {error}"));
        };
        let hint = match code {
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
                "set MQTT_USER and MQTT_PASSWORD to what the broker knows"
            }
            ConnectReturnCode::UnsupportedProtocolVersion | ConnectReturnCode::RefusedProtocolVersion => {
                "use a broker that speaks MQTT 5, or send by HTTP"
            }
            _ => return Ok(format!("the broker {host}:{port} refuses the connection: {code:?}")),
        };
        let refused = format!("the broker {host}:{port} refuses the connection: {code:?}");
        Err(Failure::new(Exit::Failed, refused).with_hint(hint))
    }
}
