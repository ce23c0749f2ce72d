//! Socket options and batched receiving for connector sockets.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Attaches a classic BPF program, replacing an earlier one at once (SO_ATTACH_FILTER, socket(7)).
pub fn attach_filter(socket: BorrowedFd<'_>, program: &[libc::sock_filter]) -> io::Result<()> {
    let length = libc::c_ushort::try_from(program.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "filter program too long"))?;
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: `filter` points at `length` instructions that live across the call; the kernel copies and only reads them.
    super::check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

/// Messages the kernel dropped at this socket since it was made, for want of buffer (SO_MEMINFO, SK_MEMINFO_DROPS).
///
/// ENOPROTOOPT before Linux 4.12.
pub fn drops(socket: BorrowedFd<'_>) -> io::Result<u32> {
    /// Index of the drop counter in the array (include/uapi/linux/sock_diag.h).
    const SK_MEMINFO_DROPS: usize = 8;
    const SO_MEMINFO: libc::c_int = 55;
    let mut values = [0u32; SK_MEMINFO_DROPS + 1];
    let mut length = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `values`.
    super::check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut length,
        )
    })?;
    Ok(values[SK_MEMINFO_DROPS])
}

/// One datagram of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// Netlink port of the sender; 0 is the kernel.
    pub sender: u32,
    /// The bytes; cut at [`Batch::DATAGRAM`].
    pub bytes: &'a [u8],
}

/// Buffers for recvmmsg(2).
#[derive(Debug)]
pub struct Batch {
    buffers: Box<[[u8; Batch::DATAGRAM]]>,
    lengths: Box<[u32]>,
    senders: Box<[u32]>,
    /// Room for what the system call is given; it is filled anew for each call, so that no pointer is kept.
    headers: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
    addresses: Vec<libc::sockaddr_nl>,
}

// SAFETY: the pointers in `headers` and `vectors` are only followed within `receive`, which writes them before.
unsafe impl Send for Batch {}

impl Batch {
    /// Bytes kept of each datagram: a connector event is 76 bytes, so there is room for kernels to come.
    pub const DATAGRAM: usize = 128;

    /// Buffers for up to `messages` datagrams a call.
    pub fn new(messages: usize) -> Self {
        Batch {
            buffers: vec![[0; Self::DATAGRAM]; messages].into_boxed_slice(),
            lengths: vec![0; messages].into_boxed_slice(),
            senders: vec![0; messages].into_boxed_slice(),
            headers: Vec::with_capacity(messages),
            vectors: Vec::with_capacity(messages),
            addresses: Vec::with_capacity(messages),
        }
    }

    /// Receives what is there without waiting; an empty iterator when there is nothing.
    ///
    /// ENOBUFS is passed on: it reports an overrun once and the queue is still to be read.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<impl Iterator<Item = Datagram<'_>>> {
        // SAFETY: all-zero is a valid value of these plain C structures.
        let empty: libc::mmsghdr = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        let count = self.buffers.len();
        let Batch { buffers, lengths, senders, headers, vectors, addresses } = self;
        headers.clear();
        headers.resize(count, empty);
        addresses.clear();
        addresses.resize(count, address);
        vectors.clear();
        vectors.extend(
            buffers
                .iter_mut()
                .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() }),
        );
        for ((header, vector), address) in
            headers.iter_mut().zip(vectors.iter_mut()).zip(addresses.iter_mut())
        {
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = std::ptr::from_mut(address).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        }
        // SAFETY: each header points at one vector, buffer and address of its own, all alive until after the call, and
        // `count` is the number of headers.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        let received = match super::check(received) {
            Ok(received) => received as usize,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        for (index, (header, address)) in headers.iter().zip(addresses.iter()).take(received).enumerate() {
            lengths[index] = header.msg_len.min(Self::DATAGRAM as u32);
            senders[index] = address.nl_pid;
        }
        Ok(buffers
            .iter()
            .zip(lengths.iter())
            .zip(senders.iter())
            .take(received)
            .map(|((buffer, &length), &sender)| Datagram { sender, bytes: &buffer[..length as usize] }))
    }
}
