//! The home router sends connections from outside on to us: asked for by PCP or NAT-PMP, else by UPnP.
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
use mapping::{Failure, Mapping};

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

/// The task that keeps a port open. Dropping it leaves the router to forget by itself.
#[derive(Debug)]
pub struct PortMapper {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl PortMapper {
    /// Asks that TCP connections to `port` come through, now and again before the router forgets; must be called inside a
    /// runtime. `told` hears where they arrive.
    pub fn start(
        wanted: PortMap,
        port: NonZeroU16,
        egress: &Egress,
        told: impl Fn(SocketAddr) + Send + Sync + 'static,
    ) -> Option<Self> {
        if wanted == PortMap::Off || egress.is_proxied() || egress.device.is_some() {
            return None;
        }
        let keeper = Keeper { wanted, port, egress: egress.clone(), open: None };
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
    open: Option<Mapping>,
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
        if let Some(open) = self.open.take() {
            open.close().await;
        }
    }

    /// Renews the mapping or asks for one; the time until the next round.
    async fn round(&mut self, told: &impl Fn(SocketAddr)) -> Duration {
        match self.renewed().await {
            Ok(mapping) => {
                let (public, pause) = (mapping.public(), mapping.lifetime() / 2);
                info!(%public, by = mapping.protocol(), "the router lets peers in");
                // Behind a second router it is nowhere that others could see us.
                if Reach::Global.allows(public.ip()) {
                    told(public);
                }
                self.open = Some(mapping);
                pause
            }
            Err(failure) => {
                info!(%failure, "no router lets peers in");
                AGAIN
            }
        }
    }

    async fn renewed(&mut self) -> Result<Mapping, Failure> {
        if let Some(open) = self.open.take() {
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
        Mapping::open(gateway, local).await
    }

    /// Where the router sees us: from there a packet to it would leave.
    async fn local_addr(&self, gateway: Gateway) -> std::io::Result<SocketAddr> {
        let socket = self.egress.udp((Ipv4Addr::UNSPECIFIED, 0).into())?;
        socket.connect((gateway.router, crab_nat::GATEWAY_PORT)).await?;
        let ip: IpAddr = socket.local_addr()?.ip();
        Ok(SocketAddr::new(ip, self.port.get()))
    }
}
