//! What the agent and a worker's process say to each other.
//!
//! One socket for control: packets of JSON, some with a file descriptor. Requests come over sockets that the agent hands over
//! this way, HTTP/1.1 on each, so that both sides stream and push back as on any network. A closed control socket means that
//! the other is gone.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use http::HeaderName;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::unix::AsyncFd;

use crate::{
    domain::replica::Failure,
    host::{isolation::Report, runner::RunSpec},
};

/// Milliseconds that a request has left, from the agent to the process. Workers never see it.
pub(crate) const TIMEOUT_HEADER: HeaderName = HeaderName::from_static("x-wharfage-internal-timeout-ms");
/// A [`crate::host::ServeError`] in place of an answer. Workers cannot set it.
pub(crate) const FAILURE_HEADER: HeaderName = HeaderName::from_static("x-wharfage-internal-failure");

/// Longest packet: a start with its environment, or a failure with its words.
const MAX_PACKET_BYTES: usize = 64 << 10;
/// Descriptors in one packet.
const MAX_DESCRIPTORS: usize = 1;

/// From the agent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToWorker {
    /// First; with the compiled code.
    Start(Box<Start>),
    /// With a socket on which requests will come.
    Connection,
    /// Finish what runs and end.
    Stop,
}

/// How to begin.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) spec: RunSpec,
    /// An empty folder.
    pub(crate) empty: PathBuf,
}

/// To the agent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromWorker {
    /// A first instance was made.
    Ready(Report),
    /// It cannot start.
    Failed(Failure),
    /// Whenever it has changed.
    Usage(Usage),
}

/// What a process has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// CPU time of the process so far.
    pub(crate) cpu_nanos: u64,
    /// Memory of the instances that live now.
    pub(crate) memory_bytes: u64,
    /// Time that requests have waited so far since the deal's CPU was used up.
    pub(crate) paused_nanos: u64,
}

/// The two ends of a control socket.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// A message with the descriptor that came along.
pub(crate) type Received<T> = (T, Option<OwnedFd>);

fn send(socket: BorrowedFd<'_>, packet: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = descriptor.into_iter().collect();
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    sendmsg(socket, &[IoSlice::new(packet)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// `None` when the other end is closed.
pub(crate) fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<Received<T>>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut packet = vec![0; MAX_PACKET_BYTES];
    let received = {
        let mut into = [IoSliceMut::new(&mut packet)];
        recvmsg(socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?
    };
    let mut descriptor = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            descriptor = descriptors.last().or(descriptor);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a packet is longer than any should be"));
    }
    let message = serde_json::from_slice(packet.get(..received.bytes).unwrap_or_default())?;
    Ok(Some((message, descriptor)))
}

/// One end of a control socket, in a runtime.
pub(crate) struct Control {
    socket: AsyncFd<OwnedFd>,
}

impl Control {
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        #[expect(unsafe_code, reason = "the runtime cannot know that a descriptor stays what it is")]
        // SAFETY: the socket is owned by what is made here, and is never taken out or replaced.
        let socket = unsafe { AsyncFd::register(socket) }?;
        Ok(Self { socket })
    }

    /// Says something, when the other has room for it.
    pub(crate) async fn send<T: Serialize>(&self, message: &T, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let packet = serde_json::to_vec(message)?;
        loop {
            let mut ready = self.socket.writable().await?;
            match ready.try_io(|socket| send(socket.as_fd(), &packet, descriptor)) {
                Ok(sent) => return sent,
                Err(_would_block) => (),
            }
        }
    }

    /// What the other says; `None` when it is gone.
    pub(crate) async fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<Received<T>>> {
        loop {
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| receive(socket.as_fd())) {
                Ok(received) => return received,
                Err(_would_block) => (),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[tokio::test]
    async fn messages_and_descriptors_arrive_and_the_end_is_noticed() {
        let (one, other) = pair().unwrap();
        let (one, other) = (Control::new(one).unwrap(), Control::new(other).unwrap());
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        one.send(&ToWorker::Connection, Some(writer.as_fd())).await.unwrap();
        one.send(&ToWorker::Stop, None).await.unwrap();
        let (message, descriptor) = other.receive::<ToWorker>().await.unwrap().unwrap();
        assert!(matches!(message, ToWorker::Connection));
        std::fs::File::from(descriptor.unwrap()).write_all(b"through").unwrap();
        writer.flush().unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        let (message, descriptor) = other.receive::<ToWorker>().await.unwrap().unwrap();
        assert!(matches!(message, ToWorker::Stop) && descriptor.is_none());
        drop(one);
        assert!(other.receive::<ToWorker>().await.unwrap().is_none());
    }
}
