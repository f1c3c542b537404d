//! One open port, by whichever protocol the router speaks.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use crab_nat::{
    InternetProtocol, MappingFailure, PortMapping, PortMappingOptions, PortMappingType,
    TimeoutConfig, natpmp,
};
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{AddPortError, GatewayIpVersion, PortMappingProtocol, SearchOptions};
use tracing::debug;

use super::{Carrier, Gateway};

/// How long the router remembers us unless we come again.
const LEASE_SECS: u32 = 3600;

/// As UPnP's routers show us to their owners.
const NAME: &str = "btfs";

/// A router that is one answers at once; one that is none never does.
const WAITS: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 2,
    max_retry_timeout: None,
};

const SEARCH: Duration = Duration::from_secs(5);

/// Why no port is open.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("no router on a private network")]
    NoGateway,
    #[error("{0}")]
    Unreachable(io::Error),
    #[error("PCP, NAT-PMP: {pcp}; UPnP: {upnp}")]
    Refused { pcp: MappingFailure, upnp: igd_next::Error },
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) gateway: Gateway,
    /// Where we are.
    pub(super) local: SocketAddr,
    pub(super) carrier: Carrier,
    /// The port outside, if that is free.
    pub(super) outside: NonZeroU16,
}

/// A port that is open.
#[derive(Debug)]
pub(super) struct Mapping {
    wish: Wish,
    public: SocketAddr,
    by: By,
}

#[derive(Debug)]
enum By {
    Pcp(Box<PortMapping>),
    Upnp(Box<igd_next::aio::Gateway<Tokio>>),
}

impl Mapping {
    /// Asks for it.
    pub(super) async fn open(wish: Wish) -> Result<Self, Failure> {
        let pcp = match pcp(wish).await {
            Ok((public, mapping)) => {
                return Ok(Self { wish, public, by: By::Pcp(Box::new(mapping)) });
            }
            Err(failure) => failure,
        };
        debug!(failure = %pcp, "the router speaks neither PCP nor NAT-PMP");
        match upnp(wish).await {
            Ok((public, igd)) => Ok(Self { wish, public, by: By::Upnp(Box::new(igd)) }),
            Err(upnp) => Err(Failure::Refused { pcp, upnp }),
        }
    }

    /// The same for another lease; asked for anew if the router has forgotten it.
    pub(super) async fn renew(self) -> Result<Self, Failure> {
        if let By::Pcp(mut mapping) = self.by
            && mapping.renew().await.is_ok()
            && let Ok(public) = public_addr(self.wish.gateway, &mapping).await
        {
            return Ok(Self { public, by: By::Pcp(mapping), ..self });
        }
        Self::open(self.wish).await
    }

    /// Has the router forget it.
    pub(super) async fn close(self) {
        let failure = match self.by {
            By::Pcp(mapping) => {
                mapping.try_drop().await.err().map(|(failure, _)| failure.to_string())
            }
            By::Upnp(igd) => {
                let carrier = self.wish.carrier.into();
                let closed = igd.remove_port(carrier, self.public.port()).await;
                closed.err().map(|failure| failure.to_string())
            }
        };
        if let Some(failure) = failure {
            debug!(failure, "the router did not forget us");
        }
    }

    /// Where the outside finds us.
    pub(super) fn public(&self) -> SocketAddr {
        self.public
    }

    /// How long it stays unless it is renewed.
    pub(super) fn lifetime(&self) -> Duration {
        let secs = match &self.by {
            By::Pcp(mapping) => mapping.lifetime().clamp(30, LEASE_SECS),
            By::Upnp(_) => LEASE_SECS,
        };
        Duration::from_secs(secs.into())
    }

    /// Its protocol's name.
    pub(super) fn protocol(&self) -> &'static str {
        match &self.by {
            By::Pcp(mapping) => match mapping.mapping_type() {
                PortMappingType::NatPmp => "NAT-PMP",
                PortMappingType::Pcp { .. } => "PCP",
            },
            By::Upnp(_) => "UPnP",
        }
    }
}

async fn pcp(wish: Wish) -> Result<(SocketAddr, PortMapping), MappingFailure> {
    let port = NonZeroU16::new(wish.local.port()).expect("it was one");
    let options = PortMappingOptions {
        external_port: Some(wish.outside),
        lifetime_seconds: Some(LEASE_SECS),
        timeout_config: Some(WAITS),
    };
    let (router, carrier) = (wish.gateway.router.into(), wish.carrier.into());
    let mapping = match PortMapping::new(router, wish.local.ip(), carrier, port, options).await {
        Ok(mapping) => mapping,
        // Some routers are silent on PCP though they speak NAT-PMP; the library tries that only when told so.
        Err(_) => natpmp::port_mapping(router, carrier, port, options).await?,
    };
    Ok((public_addr(wish.gateway, &mapping).await?, mapping))
}

async fn public_addr(
    gateway: Gateway,
    mapping: &PortMapping,
) -> Result<SocketAddr, MappingFailure> {
    let ip: IpAddr = match mapping.mapping_type() {
        PortMappingType::Pcp { external_ip, .. } => external_ip.to_canonical(),
        PortMappingType::NatPmp => {
            natpmp::external_address(gateway.router.into(), Some(WAITS)).await?.into()
        }
    };
    Ok(SocketAddr::new(ip, mapping.external_port().get()))
}

async fn upnp(wish: Wish) -> Result<(SocketAddr, igd_next::aio::Gateway<Tokio>), igd_next::Error> {
    let Wish { gateway, local, carrier, outside } = wish;
    let (carrier, outside) = (carrier.into(), outside.get());
    let mut options = SearchOptions::default();
    options.bind_addr = SocketAddr::new(local.ip(), 0);
    options.broadcast_address = gateway.ssdp;
    options.timeout = Some(SEARCH);
    // Others must be on a private network, and be who they say that they are.
    options.allowed_gateway_ips = vec![gateway.router.into()];
    options.gateway_ip_version = GatewayIpVersion::V4;
    let igd = search_gateway(options).await?;
    let port = match igd.add_port(carrier, outside, local, LEASE_SECS, NAME).await {
        Ok(()) => outside,
        Err(AddPortError::OnlyPermanentLeasesSupported) => {
            igd.add_port(carrier, outside, local, 0, NAME).await?;
            outside
        }
        Err(AddPortError::PortInUse) => igd.add_any_port(carrier, local, LEASE_SECS, NAME).await?,
        Err(error) => return Err(error.into()),
    };
    let ip = igd.get_external_ip().await?;
    Ok((SocketAddr::new(ip, port), igd))
}

impl From<Carrier> for InternetProtocol {
    fn from(carrier: Carrier) -> Self {
        match carrier {
            Carrier::Tcp => Self::Tcp,
            Carrier::Udp => Self::Udp,
        }
    }
}

impl From<Carrier> for PortMappingProtocol {
    fn from(carrier: Carrier) -> Self {
        match carrier {
            Carrier::Tcp => Self::TCP,
            Carrier::Udp => Self::UDP,
        }
    }
}
