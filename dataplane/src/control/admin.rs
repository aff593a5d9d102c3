//! The admin listener: `/healthz` and `/metrics` by HTTP, on the control thread, so that it never takes a shard's time.
//! Whoever reaches it may read; it changes nothing, and holds no data of a session.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use super::Control;
use super::metrics::since;
use crate::datapath::counters::Counters;
use crate::shard::{Now, spawn};

/// Connections at one moment; for one more the oldest goes. Each costs a descriptor and some kilobytes.
const CONNECTIONS_MAX: usize = 64;
/// For the request: whoever has one to make sends it at once, and a probe must not wait for others that do not.
const REQUEST_TIME_MAX: Duration = Duration::from_millis(500);
/// From the connection to the last byte of the answer.
const TIME_MAX: Duration = Duration::from_secs(5);
const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// After a failed accept (no descriptor is free, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// An idle shard turns four times a second.
const TURN_AGE_MAX: Duration = Duration::from_secs(2);
/// Shards stop new statements after 1 s; the rest is how old their own look may be.
const HEARTBEAT_AGE_MAX: Duration = Duration::from_millis(1500);

/// What the listener knows.
pub struct Admin {
    /// What is in force.
    control: RwLock<Arc<Control>>,
    /// Of each shard, by number.
    pub(super) counters: Vec<Arc<Counters>>,
    pub(super) driver: &'static str,
    /// Seconds since 1970.
    pub(super) started_unix_s: f64,
}

/// Takes the address.
///
/// # Errors
/// What the kernel says: the address is taken, say.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Admin {
    pub fn new(control: Arc<Control>, counters: Vec<Arc<Counters>>, driver: &'static str) -> Self {
        let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { control: RwLock::new(control), counters, driver, started_unix_s: started.as_secs_f64() }
    }

    pub(super) fn control(&self) -> Arc<Control> {
        self.control.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another configuration is in force.
    pub fn reloaded(&self, control: Arc<Control>) {
        *self.control.write().unwrap_or_else(PoisonError::into_inner) = control;
    }

    /// Answers on the control thread's runtime, as long as that turns.
    ///
    /// # Errors
    /// When the runtime cannot take the listener.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) -> std::io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let mut connections: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    connections.retain(|connection| !connection.is_finished());
                    if connections.len() >= CONNECTIONS_MAX {
                        connections.pop_front().iter().for_each(AbortHandle::abort);
                    }
                    let answering = tokio::time::timeout(TIME_MAX, self.clone().answer_on(stream));
                    connections.push_back(tokio::spawn(answering).abort_handle());
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    async fn answer_on(self: Arc<Self>, stream: TcpStream) {
        let answer = |request: Request<Incoming>| {
            let response = self.answer(request.method(), request.uri().path(), spawn::now());
            async move { Ok::<_, Infallible>(response) }
        };
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(REQUEST_TIME_MAX)
            .keep_alive(false)
            .max_buf_size(REQUEST_BYTES_MAX);
        // A peer that breaks off is its own affair.
        let _ = http.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
    }

    fn answer(&self, method: &Method, path: &str, now: Now) -> Response<Full<Bytes>> {
        const JSON: &str = "application/json";
        const TEXT: &str = "text/plain; charset=utf-8";
        let (status, kind, body) = match (method, path) {
            (&Method::GET | &Method::HEAD, "/healthz") => {
                let reasons = self.troubles(now);
                let (status, says) = match reasons.is_empty() {
                    true => (StatusCode::OK, "ok"),
                    false => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
                };
                (status, JSON, format!("{}\n", json!({"status": says, "reasons": reasons})))
            }
            (&Method::GET | &Method::HEAD, "/metrics") => {
                (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", self.metrics(now))
            }
            (_, "/healthz" | "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET or HEAD\n".to_owned()),
            _ => (StatusCode::NOT_FOUND, TEXT, "there are /healthz and /metrics\n".to_owned()),
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    /// Why clients should go elsewhere now; nothing if all is well.
    fn troubles(&self, now: Now) -> Vec<String> {
        let late = |age: Option<Duration>, max: Duration| age.is_none_or(|age| age > max);
        let mut found = Vec::new();
        for (shard, counters) in self.counters.iter().enumerate() {
            let turn = since(now.monotonic_ns, counters.turned_monotonic_ns.get());
            if late(turn, TURN_AGE_MAX) {
                found.push(format!("shard {shard} does not turn: {}", ago(turn)));
                // What it last saw of the recorder says nothing of the recorder.
                continue;
            }
            let heartbeat = since(now.unix_ns, counters.recorder_heartbeat_unix_ns.get());
            if late(heartbeat, HEARTBEAT_AGE_MAX) {
                found.push(format!("the recorder shows no life in the ring of shard {shard}: {}", ago(heartbeat)));
            }
        }
        let control = self.control();
        let unread = (0..control.resources.len()).filter(|resource| control.snapshot(*resource).is_none());
        let names = unread.map(|resource| &control.resources[resource].name);
        found.extend(names.map(|name| format!("the catalogue of resource {name} has not been read yet")));
        found
    }
}

fn ago(age: Option<Duration>) -> String {
    age.map_or("it never has".to_owned(), |age| format!("the last time was {:.1} s ago", age.as_secs_f64()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// No issuer, no resource, an empty policy.
    pub(in crate::control) fn paper(counters: Vec<Arc<Counters>>) -> Admin {
        let source =
            policy_compiler::policy::Source { name: "paper".into(), text: include_str!("../demo/policy.toml").into() };
        let bytes = policy_compiler::build::compile(&[source]).expect("a sound policy");
        let policy = policy_compiler::artifact::Policy::from_bytes(bytes).expect("a sound artifact");
        let control = Control::new(Box::new(|_, _| Err("nobody")), policy, Vec::new());
        Admin::new(Arc::new(control), counters, "paper")
    }

    const SECOND_NS: u64 = 1_000_000_000;
    const NOW: Now = Now { unix_ns: 100 * SECOND_NS, monotonic_ns: 50 * SECOND_NS };

    fn admin(turned_ns: u64, heartbeat_ns: u64) -> Admin {
        let counters = Counters::default();
        counters.turned_monotonic_ns.set(turned_ns);
        counters.recorder_heartbeat_unix_ns.set(heartbeat_ns);
        paper(vec![Arc::new(counters)])
    }

    #[test]
    fn health_is_told_by_turns_and_heartbeats() {
        let rows = [
            (49 * SECOND_NS, 99 * SECOND_NS, 200, ""),
            (47 * SECOND_NS, 99 * SECOND_NS, 503, "shard 0 does not turn: the last time was 3.0 s ago"),
            (0, 99 * SECOND_NS, 503, "shard 0 does not turn: it never has"),
            (50 * SECOND_NS, 98 * SECOND_NS, 503, "the recorder shows no life in the ring of shard 0"),
            (50 * SECOND_NS, 0, 503, "the recorder shows no life in the ring of shard 0: it never has"),
        ];
        for (turned_ns, heartbeat_ns, status, reason) in rows {
            let admin = admin(turned_ns, heartbeat_ns);
            let found = admin.answer(&Method::GET, "/healthz", NOW).status();
            let troubles = admin.troubles(NOW);
            assert_eq!((found.as_u16(), troubles.is_empty()), (status, reason.is_empty()), "{troubles:?}");
            assert!(troubles.first().is_none_or(|t| t.starts_with(reason)), "{troubles:?}");
        }
    }

    #[test]
    fn only_two_pages_are_there_and_only_to_read() {
        let admin = admin(1, 1);
        for (method, path, status) in [
            (Method::HEAD, "/metrics", 200),
            (Method::POST, "/metrics", 405),
            (Method::GET, "/", 404),
            (Method::GET, "/metrics/", 404),
        ] {
            assert_eq!(admin.answer(&method, path, NOW).status().as_u16(), status, "{method} {path}");
        }
    }
}
