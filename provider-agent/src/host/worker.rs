//! One deal's worker, wherever it runs.

use std::{
    error::Error as StdError,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use common::{feature::FeatureSet, ids::DealId, region::Region, resources::Resources};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};

#[cfg(target_os = "linux")]
use super::process::remote::{Remote, RemoteBody};
use super::{
    BodyCut, Report, ServeError,
    runner::{RunSpec, Runner, RunnerBody},
};
use crate::config::HostLimits;

/// Whom a worker serves, and what was bought for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerSpec {
    /// The deal.
    pub deal: DealId,
    /// Where this machine stands, if it says.
    pub region: Option<Region>,
    /// What was bought: memory over all instances together, and CPU over all requests together.
    pub size: Resources,
    /// What the developer offer requires.
    pub features: FeatureSet,
}

impl WorkerSpec {
    pub(super) fn for_runner(&self, limits: HostLimits) -> RunSpec {
        let region = self.region.map(|region| region.to_string()).unwrap_or_default();
        let environment =
            vec![("WHARFAGE_DEAL".to_owned(), self.deal.to_string()), ("WHARFAGE_REPLICA_REGION".to_owned(), region)];
        let memory = u64::from(self.size.memory_mib).saturating_mul(1 << 20);
        RunSpec { environment, memory, milli_cpu: self.size.milli_cpu, limits }
    }
}

/// Answers requests for one deal. Cheap to clone.
#[derive(Clone)]
pub struct Worker {
    place: Place,
}

#[derive(Clone)]
enum Place {
    Here(Runner),
    #[cfg(target_os = "linux")]
    Process(Remote),
}

impl From<Runner> for Worker {
    fn from(runner: Runner) -> Self {
        Self { place: Place::Here(runner) }
    }
}

#[cfg(target_os = "linux")]
impl From<Remote> for Worker {
    fn from(remote: Remote) -> Self {
        Self { place: Place::Process(remote) }
    }
}

macro_rules! wherever {
    ($worker:expr, $it:ident => $do:expr) => {
        match &$worker.place {
            Place::Here($it) => $do,
            #[cfg(target_os = "linux")]
            Place::Process($it) => $do,
        }
    };
}

impl Worker {
    /// Requests that run now.
    pub fn running(&self) -> usize {
        wherever!(self, it => it.running())
    }

    /// Memory in use now by all instances, in bytes; up to a tenth of a second old.
    pub fn memory_used(&self) -> u64 {
        wherever!(self, it => it.memory_used())
    }

    /// CPU time that was used since this was last asked: by requests that have ended, or by the worker's whole process.
    pub fn take_cpu_used(&self) -> Duration {
        wherever!(self, it => it.take_cpu_used())
    }

    /// Time so far that requests have waited since the CPU that was bought was used up, summed over them.
    pub fn paused(&self) -> Duration {
        wherever!(self, it => it.paused())
    }

    /// Refuses all further requests and waits until the running ones have ended, which their deadline bounds.
    pub async fn close(&self) {
        wherever!(self, it => it.close().await);
    }

    /// The worker's process, if it has one of its own.
    pub fn process_id(&self) -> Option<u32> {
        match &self.place {
            Place::Here(_) => None,
            #[cfg(target_os = "linux")]
            Place::Process(remote) => Some(remote.process_id()),
        }
    }

    /// What stands between this worker and the machine, if it has a process of its own.
    pub fn report(&self) -> Option<&Report> {
        match &self.place {
            Place::Here(_) => None,
            #[cfg(target_os = "linux")]
            Place::Process(remote) => Some(remote.report()),
        }
    }

    /// Waits until the worker's process has ended, which it should not by itself, and says why it did. A worker without one
    /// never ends.
    pub async fn ended(&self) -> String {
        match &self.place {
            Place::Here(_) => std::future::pending().await,
            #[cfg(target_os = "linux")]
            Place::Process(remote) => remote.ended().await,
        }
    }

    /// Answers one request. The body of the answer streams; it ends early when a limit is hit after its begin.
    pub async fn handle<B>(&self, request: Request<B>) -> Result<Response<WorkerBody>, ServeError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        match &self.place {
            Place::Here(runner) => {
                let response = runner.handle(request, runner.deadline()).await?;
                Ok(response.map(|body| WorkerBody { place: BodyPlace::Here(body) }))
            }
            #[cfg(target_os = "linux")]
            Place::Process(remote) => {
                let response = remote.handle(request).await?;
                Ok(response.map(|body| WorkerBody { place: BodyPlace::Process(body) }))
            }
        }
    }
}

/// The body of a worker's answer. It fails at its end when the worker failed before it was through.
pub struct WorkerBody {
    place: BodyPlace,
}

enum BodyPlace {
    Here(RunnerBody),
    #[cfg(target_os = "linux")]
    Process(RemoteBody),
}

impl Body for WorkerBody {
    type Data = Bytes;
    type Error = BodyCut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyCut>>> {
        match &mut self.place {
            BodyPlace::Here(body) => Pin::new(body).poll_frame(cx),
            #[cfg(target_os = "linux")]
            BodyPlace::Process(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.place {
            BodyPlace::Here(body) => body.is_end_stream(),
            #[cfg(target_os = "linux")]
            BodyPlace::Process(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.place {
            BodyPlace::Here(body) => body.size_hint(),
            #[cfg(target_os = "linux")]
            BodyPlace::Process(body) => body.size_hint(),
        }
    }
}
