//! Announces over HTTP and HTTPS, and documents and parts of them by the same rules.
//!
//! Invariant: every address that is dialled has passed [`Reach::allows`], also after redirects: names go
//! through our resolver, addresses in URLs are checked before the request. Names that a proxy resolves are its to
//! judge, but for those of its own machine.
//! Invariant: TLS certificates are always verified.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{LOCATION, RANGE};
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use url::{Host, Url};

use super::failure::Failure;
use crate::engine::egress::Egress;
use crate::proto::announce::answer::{self, MAX_BODY};
use crate::proto::announce::query;
use crate::proto::announce::reach::Reach;
use crate::proto::announce::udp::Family;
use crate::proto::announce::{Announce, Answer, AnswerError};

/// Hops after the first request.
const MAX_REDIRECTS: usize = 5;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two reads of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections to one host that are kept for its next part.
const MAX_IDLE: usize = 4;

/// A client for each family and reach, built when first used: reading the system's certificates is dear.
pub(super) struct Http {
    clients: [[OnceLock<Client>; Reach::ALL.len()]; 2],
    egress: Egress,
    habit: Habit,
}

/// What is mostly asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    /// An answer in minutes: no connection is kept, and it may come compressed.
    Answers,
    /// One part of a document after another: connections are kept, and bytes come as they are.
    Parts,
}

impl Http {
    pub(super) fn new(egress: Egress, habit: Habit) -> Self {
        // Fails only when the process has chosen a provider already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { clients: Default::default(), egress, habit }
    }

    /// Announces to this URL over this family.
    pub(super) async fn announce(
        &self,
        mut url: Url,
        family: Family,
        announce: &Announce,
        tracker_id: Option<&[u8]>,
    ) -> Result<Answer, Failure> {
        let own = url.query().unwrap_or_default();
        if query::speaks_for_the_peer(own) {
            return Err(Failure::Url("its query says what only a peer may say".to_owned()));
        }
        let joint = if own.is_empty() { "" } else { "&" };
        let full = format!("{own}{joint}{}", query::write(announce, tracker_id));
        url.set_query(Some(&full));
        let reach = |url: &Url, from| Reach::of_http(url.path(), from);
        let response = self.follow(url, family, reach, None).await?;
        let status = response.status();
        let body = read(response, MAX_BODY).await?;
        match answer::read(&body) {
            // Some trackers send their refusal with a status of its own.
            Err(AnswerError::Malformed(_)) if !status.is_success() => {
                Err(Failure::Status(status.as_u16()))
            }
            answer => Ok(answer?),
        }
    }

    /// Begins to read these bytes of a web seed's document (BEP 19), of which there is at least one.
    pub(super) async fn range(
        &self,
        url: Url,
        family: Family,
        range: Range<u64>,
    ) -> Result<Response, Failure> {
        let reach = |url: &Url, from| Reach::of_web_seed(url.query().is_some(), from);
        self.follow(url, family, reach, Some(range)).await
    }

    /// The document at a URL that the user typed, which may be on this machine; where it leads from there is a
    /// stranger's wish.
    pub(super) async fn fetch(
        &self,
        url: Url,
        family: Family,
        most: usize,
    ) -> Result<Vec<u8>, Failure> {
        let reach = |url: &Url, from: Option<IpAddr>| match from {
            None => Reach::Loopback,
            Some(_) => Reach::of_http(url.path(), from),
        };
        let response = self.follow(url, family, reach, None).await?;
        let status = response.status();
        if !status.is_success() {
            return Err(Failure::Status(status.as_u16()));
        }
        read(response, most).await
    }

    /// Follows redirects by hand, as each hop has its own reach.
    async fn follow(
        &self,
        mut url: Url,
        family: Family,
        reach_of: impl Fn(&Url, Option<IpAddr>) -> Reach,
        range: Option<Range<u64>>,
    ) -> Result<Response, Failure> {
        let mut reach = reach_of(&url, None);
        for _ in 0..=MAX_REDIRECTS {
            self.check(&url, family, reach)?;
            let mut request = self.client(family, reach)?.get(url.clone());
            if let Some(Range { start, end }) = range {
                request = request.header(RANGE, format!("bytes={start}-{}", end - 1));
            }
            let response = request.send().await?;
            let Some(next) = redirect(&url, &response)? else { return Ok(response) };
            if url.scheme() == "https" && next.scheme() != "https" {
                return Err(Failure::Downgrade);
            }
            reach = match response.remote_addr() {
                Some(far) if !self.egress.is_proxied() => reach_of(&next, Some(far.ip())),
                // Nobody knows who sent it.
                _ => Reach::Global,
            };
            url = next;
        }
        Err(Failure::Redirects)
    }

    /// Checks what the resolver never sees: the scheme, an address in place of a name, and names that the proxy
    /// resolves.
    fn check(&self, url: &Url, family: Family, reach: Reach) -> Result<(), Failure> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Failure::Forbidden(format!("{}:", url.scheme())));
        }
        let ip: IpAddr = match url.host() {
            Some(Host::Ipv4(ip)) => ip.into(),
            Some(Host::Ipv6(ip)) => ip.into(),
            Some(Host::Domain(_)) if !self.egress.is_proxied() => return Ok(()),
            Some(Host::Domain(name)) if is_of_the_machine(name) => Ipv4Addr::LOCALHOST.into(),
            // The proxy chooses the family, so one announce is all that can be wanted.
            Some(Host::Domain(_)) if family == Family::V4 => return Ok(()),
            Some(Host::Domain(_)) => return Err(Failure::NoAddress),
            None => return Err(Failure::Url("it has no host".to_owned())),
        };
        if Family::of(&SocketAddr::new(ip, 0)) != family {
            return Err(Failure::NoAddress);
        }
        if reach.allows(ip) { Ok(()) } else { Err(Failure::Forbidden(ip.to_string())) }
    }

    fn client(&self, family: Family, reach: Reach) -> Result<&Client, Failure> {
        let slot = &self.clients[family as usize][reach as usize];
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let client = build(&self.egress, family, reach, self.habit)?;
        Ok(slot.get_or_init(|| client))
    }
}

fn build(egress: &Egress, family: Family, reach: Reach, habit: Habit) -> Result<Client, Failure> {
    let idle = if habit == Habit::Parts { MAX_IDLE } else { 0 };
    let builder = || {
        let resolver = Resolver { egress: egress.clone(), family, reach };
        let builder = egress
            .http(family)?
            .user_agent(concat!("btfs/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .dns_resolver(Arc::new(resolver))
            .pool_max_idle_per_host(idle)
            .gzip(habit == Habit::Answers);
        Ok::<_, reqwest::Error>(builder)
    };
    // A machine without certificates can still announce over http; https fails there, as it must.
    let client = builder()?.build().or_else(|_| builder()?.tls_certs_only([]).build());
    client.map_err(Failure::Http)
}

/// Whether the name stands for the machine where it is resolved (RFC 6761).
fn is_of_the_machine(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name == "localhost" || name.ends_with(".localhost")
}

fn redirect(url: &Url, response: &Response) -> Result<Option<Url>, Failure> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let target = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let Some(target) = target else { return Ok(None) };
    url.join(target).map(Some).map_err(|e| Failure::Url(e.to_string()))
}

/// Reads a body, whatever length it claims or inflates to.
async fn read(mut response: Response, most: usize) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > most {
            return Err(Failure::TooLong(most >> 20));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The system's resolver, seen through one family and reach.
struct Resolver {
    egress: Egress,
    family: Family,
    reach: Reach,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (egress, family, reach) = (self.egress.clone(), self.family, self.reach);
        Box::pin(async move {
            // The port is set by the connection.
            let found = super::udp::lookup(&egress, name.as_str(), 0, family, reach).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
