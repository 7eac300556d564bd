//! The simulated devices of the Python original at work: they hand their readings over as any other device does.

use std::time::{Duration, SystemTime};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{
    device::Devices,
    gateway::Gateway,
    job::State,
    outbox::{OutboxError, OutboxStatus},
    reading::{Body, DeviceName, Reading},
};

/// How long the devices wait at most before they try again where the queue took nothing.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long they wait at least: a queue that is being emptied changes thousands of times a second.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(200);

/// Makes a list whenever one is due, until the state is gone.
pub(crate) async fn generate(state: watch::Sender<State>, gateway: Gateway) {
    let mut view = state.subscribe();
    let mut devices = Devices::default();
    let mut epoch = 0;
    let mut due = Instant::now();
    loop {
        let wanted =
            view.wait_for(|state| state.wanted().is_some()).await.map(|state| (state.wanted(), state.epoch));
        let Ok((Some(job), job_epoch)) = wanted else { return };
        if epoch != job_epoch {
            (epoch, due) = (job_epoch, Instant::now());
        }
        if timeout_at(due, view.wait_for(|state| state.epoch != epoch)).await.is_ok() {
            continue;
        }
        let changed = async {
            let _ = view.wait_for(|state| state.epoch != epoch).await;
        };
        tokio::select! {
            () = changed => {}
            () = make_list(&state, &gateway, &mut devices, job.items(), job.interval().is_zero()) => {}
        }
        // Lists that were due in the meantime are not made up for.
        due = (due + job.interval()).max(Instant::now());
    }
}

/// Makes one list, and waits until the queue has it; with an interval of 0 until the receiver has it.
async fn make_list(
    state: &watch::Sender<State>,
    gateway: &Gateway,
    devices: &mut Devices,
    items: usize,
    wait_for_delivery: bool,
) {
    let mut queue = gateway.status();
    let readings = Vec::from_iter((0..items).map(|_| measure(devices)));
    let mut told = false;
    loop {
        queue.mark_unchanged();
        match gateway.take(readings.clone()).await {
            Ok(_) => break,
            Err(OutboxError::Closed) => return sleep(RETRY_PAUSE_MAX).await,
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(items, "the simulated devices wait: {error}");
                }
                state.send_if_modified(|state| !std::mem::replace(&mut state.paused, true));
                let _ = timeout(RETRY_PAUSE_MAX, queue.changed()).await;
                sleep(RETRY_PAUSE_MIN).await;
            }
        }
    }
    state.send_if_modified(|state| std::mem::take(&mut state.paused));
    if wait_for_delivery {
        // As many as wait now: then this list is done, or others that waited longer than it.
        let goal = {
            let status = queue.borrow();
            settled(&status) + status.waiting
        };
        let _ = queue.wait_for(|status| status.waiting == 0 || settled(status) >= goal).await;
    }
}

/// Returns how many records have left the queue.
fn settled(status: &OutboxStatus) -> u64 {
    status.acknowledged + status.set_aside + status.dropped
}

fn measure(devices: &mut Devices) -> Reading {
    let (device, text) = devices.measure(SystemTime::now());
    let device = DeviceName::new(device).expect("the simulated devices have names of letters and digits");
    Reading { device, identity: None, body: Body::Bare(text) }
}
