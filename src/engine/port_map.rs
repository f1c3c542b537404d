//! The home router sends connections from outside on to us, and datagrams: asked for by PCP or NAT-PMP, else by UPnP.
//!
//! Invariant: nobody waits for the router but the task here, and the end of the process for a second.
//! Invariant: a router is asked only on a private network, and never beside a proxy or a chosen interface: the
//! libraries open sockets of their own.
//!
//! Not here: IPv6, where no address is translated.

mod gateway;
mod mapping;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use super::egress::Egress;
use crate::proto::announce::reach::Reach;

pub use gateway::Gateway;
use mapping::{Failure, Mapping, Wish};

/// After a refusal the router is asked again: it may have been replaced, or we may have moved.
const AGAIN: Duration = Duration::from_secs(15 * 60);

/// Longest time that the end waits for the router to forget us; it forgets by itself within the hour.
const PARTING: Duration = Duration::from_secs(1);

/// Whether a router is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PortMap {
    /// None is.
    #[default]
    Off,
    /// The one of the default route, if it is on a private network.
    DefaultRoute,
    /// This one.
    At(Gateway),
}

/// What brings peers to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Connections.
    Tcp,
    /// Datagrams, of uTP and the DHT.
    Udp,
}

/// The task that keeps a port open. Dropping it leaves the router to forget by itself.
#[derive(Debug)]
pub struct PortMapper {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl PortMapper {
    /// Asks that what these bring to `port` comes through, now and again before the router forgets; must be called
    /// inside a runtime. The second is asked for at the port outside that the first has got, since peers know but one;
    /// `told` hears where that is.
    pub fn start(
        wanted: PortMap,
        port: NonZeroU16,
        carriers: impl IntoIterator<Item = Carrier>,
        egress: &Egress,
        told: impl Fn(SocketAddr) + Send + Sync + 'static,
    ) -> Option<Self> {
        if wanted == PortMap::Off || egress.is_proxied() || egress.device.is_some() {
            return None;
        }
        let doors = carriers.into_iter().map(|carrier| (carrier, None)).collect();
        let keeper = Keeper { wanted, port, egress: egress.clone(), doors };
        let (stop, stopped) = oneshot::channel();
        Some(Self { stop, task: tokio::spawn(keeper.keep(told, stopped)) })
    }

    /// Has the router forget us, and returns when that is done, soon in any case.
    pub async fn stop(self) {
        // An error means that the task has ended by a panic, which is told already.
        let _ = self.stop.send(());
        let _ = timeout(PARTING, self.task).await;
    }
}

struct Keeper {
    wanted: PortMap,
    port: NonZeroU16,
    egress: Egress,
    /// The first decides on the port outside.
    doors: Vec<(Carrier, Option<Mapping>)>,
}

impl Keeper {
    async fn keep(mut self, told: impl Fn(SocketAddr), mut stopped: oneshot::Receiver<()>) {
        let rounds = async {
            loop {
                let pause = self.round(&told).await;
                sleep(pause).await;
            }
        };
        tokio::select! {
            () = rounds => {}
            _ = &mut stopped => {}
        }
        for open in self.doors.into_iter().filter_map(|(_, open)| open) {
            open.close().await;
        }
    }

    /// Renews the mappings or asks for them; the time until the next round.
    async fn round(&mut self, told: &impl Fn(SocketAddr)) -> Duration {
        let (mut pause, mut first) = (Duration::MAX, None);
        for door in 0..self.doors.len() {
            let carrier = self.doors[door].0;
            match self.renewed(door, first).await {
                Ok(mapping) => {
                    let (public, by) = (mapping.public(), mapping.protocol());
                    info!(?carrier, %public, by, "the router lets peers in");
                    pause = pause.min(mapping.lifetime() / 2);
                    first.get_or_insert(public);
                    self.doors[door].1 = Some(mapping);
                }
                Err(failure) => {
                    info!(?carrier, %failure, "no router lets peers in");
                    pause = pause.min(AGAIN);
                    break;
                }
            }
        }
        // Behind a second router it is nowhere that others could see us.
        if let Some(public) = first.filter(|public| Reach::Global.allows(public.ip())) {
            told(public);
        }
        pause
    }

    async fn renewed(
        &mut self,
        door: usize,
        first: Option<SocketAddr>,
    ) -> Result<Mapping, Failure> {
        let (carrier, open) = &mut self.doors[door];
        let carrier = *carrier;
        if let Some(open) = open.take() {
            match open.renew().await {
                Ok(renewed) => return Ok(renewed),
                Err(failure) => debug!(%failure, "the router no longer knows us"),
            }
        }
        let gateway = match self.wanted {
            PortMap::At(gateway) => gateway,
            PortMap::DefaultRoute | PortMap::Off => {
                Gateway::of_system().ok_or(Failure::NoGateway)?
            }
        };
        let local = self.local_addr(gateway).await.map_err(Failure::Unreachable)?;
        let outside = first.and_then(|first| NonZeroU16::new(first.port())).unwrap_or(self.port);
        Mapping::open(Wish { gateway, local, carrier, outside }).await
    }

    /// Where the router sees us: from there a packet to it would leave.
    async fn local_addr(&self, gateway: Gateway) -> std::io::Result<SocketAddr> {
        let socket = self.egress.udp((Ipv4Addr::UNSPECIFIED, 0).into())?;
        socket.connect((gateway.router, crab_nat::GATEWAY_PORT)).await?;
        let ip: IpAddr = socket.local_addr()?.ip();
        Ok(SocketAddr::new(ip, self.port.get()))
    }
}
