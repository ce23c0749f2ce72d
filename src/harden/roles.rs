//! The roles of threads, and the system calls of each: the table to extend when a thread needs another one, or there is a
//! new kind of thread.
//!
//! A role either lists what it may call, or may call everything but what nobody here ever needs. What a thread calls
//! without being allowed fails with ENOSYS, as on an older kernel, and the kernel logs it: the C library and others try
//! newer calls first and know how to do without. What no part of execwatch ever calls, and whoever has got into it would,
//! ends the process at once: a service manager starts it again and tells of it.

/// What a thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The main thread; what it may not do nobody may, because its filter is inherited.
    Main,
    /// Reads programs that are held.
    Listener,
    /// Rules, baseline, records.
    Worker,
    /// Reads processes that run already, at the start.
    Snapshot,
    /// Looks at alerted programs.
    FollowUp,
    /// Looks for installed utilities.
    Identity,
    /// Writes the baseline's database.
    Baseline,
    /// Writes the incidents' database.
    Incidents,
    /// Writes the journal, and has the disk write it.
    Journal,
    /// Sends records: files, sockets, and names of hosts.
    Output,
    /// Answers at the control socket.
    Control,
    /// Writes the file for Prometheus.
    Metrics,
    /// Reads configuration and rules.
    Reload,
    /// Waits for a second signal.
    Signals,
}

/// What a role may call.
#[derive(Debug, Clone, Copy)]
pub enum Calls {
    /// These lists alone.
    Only(&'static [&'static [libc::c_long]]),
    /// Everything but [`FORBIDDEN`].
    Most,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 14] = [
        Role::Main,
        Role::Listener,
        Role::Worker,
        Role::Snapshot,
        Role::FollowUp,
        Role::Identity,
        Role::Baseline,
        Role::Incidents,
        Role::Journal,
        Role::Output,
        Role::Control,
        Role::Metrics,
        Role::Reload,
        Role::Signals,
    ];

    /// What it may call; `responses` says whether processes are sent signals.
    pub fn calls(self, responses: bool) -> Calls {
        match self {
            Role::Main => Calls::Most,
            Role::Listener if responses => Calls::Only(&[OWN, READING, HELD, SIGNALLING]),
            Role::Listener => Calls::Only(&[OWN, READING, HELD]),
            Role::Worker if responses => {
                Calls::Only(&[OWN, READING, WRITING, MOVING, SOCKETS, SCHEDULING, THREADS, SIGNALLING])
            }
            Role::Worker => Calls::Only(&[OWN, READING, WRITING, MOVING, SOCKETS, SCHEDULING, THREADS]),
            // A file in memory tells the device of such files.
            Role::Identity => Calls::Only(&[OWN, READING, &[libc::SYS_memfd_create]]),
            Role::Snapshot => Calls::Only(&[OWN, READING]),
            Role::FollowUp => Calls::Only(&[OWN, READING, SOCKETS]),
            Role::Baseline | Role::Incidents | Role::Metrics => Calls::Only(&[OWN, READING, WRITING, MOVING]),
            Role::Journal => Calls::Only(&[OWN, READING, WRITING, MOVING, &[libc::SYS_setpriority]]),
            // A long message to journald is a file in memory.
            Role::Output => Calls::Only(&[OWN, READING, WRITING, MOVING, SOCKETS, &[libc::SYS_memfd_create]]),
            Role::Control => Calls::Only(&[OWN, READING, SOCKETS, &[libc::SYS_accept4]]),
            // It may start the thread that looks at files, which must not be allowed less than one from the start.
            Role::Reload => Calls::Only(&[
                OWN,
                READING,
                SOCKETS,
                THREADS,
                LOCKING,
                &[libc::SYS_memfd_create, libc::SYS_seccomp, libc::SYS_sched_setscheduler],
            ]),
            Role::Signals => Calls::Only(&[OWN, SOCKETS]),
        }
    }
}

/// Joins numbers that both architectures have with those that only x86-64 still has. On others, which are not filtered,
/// the lists are empty: not all of these calls are there.
macro_rules! calls {
    ($(#[$meta:meta])* $name:ident: $($call:ident)*; x86_64: $($old:ident)*) => {
        $(#[$meta])*
        #[cfg(target_arch = "x86_64")]
        pub const $name: &[libc::c_long] = &[$(libc::$call,)* $(libc::$old,)*];
        $(#[$meta])*
        #[cfg(target_arch = "aarch64")]
        pub const $name: &[libc::c_long] = &[$(libc::$call,)*];
        $(#[$meta])*
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        pub const $name: &[libc::c_long] = &[];
    };
}

calls! {
    /// Memory, time, waiting, messages on standard error, and the end: every thread.
    OWN: SYS_read SYS_write SYS_writev SYS_close SYS_fcntl SYS_futex SYS_mmap SYS_munmap SYS_mprotect SYS_madvise
        SYS_mremap SYS_brk SYS_rt_sigreturn SYS_rt_sigprocmask SYS_rt_sigaction SYS_sigaltstack SYS_restart_syscall
        SYS_exit SYS_exit_group SYS_clock_gettime SYS_clock_getres SYS_clock_nanosleep SYS_nanosleep SYS_gettimeofday
        SYS_getpid SYS_gettid SYS_getcpu SYS_tgkill SYS_sched_yield SYS_sched_getaffinity SYS_getrandom SYS_set_robust_list
        SYS_rseq SYS_ppoll SYS_prctl SYS_membarrier SYS_sendto;
    x86_64: SYS_poll SYS_time
}

calls! {
    /// Files and folders.
    READING: SYS_openat SYS_openat2 SYS_readlinkat SYS_fstat SYS_newfstatat SYS_statx SYS_lseek SYS_readv SYS_pread64
        SYS_preadv SYS_preadv2 SYS_getdents64 SYS_statfs SYS_fstatfs SYS_faccessat SYS_faccessat2 SYS_fadvise64 SYS_getcwd SYS_dup
        SYS_geteuid SYS_getuid SYS_getegid SYS_getgid SYS_uname SYS_sysinfo SYS_ioctl;
    x86_64: SYS_open SYS_stat SYS_lstat SYS_access SYS_readlink
}

calls! {
    /// What only listeners do: receive, hold a program on its CPU, wake the worker.
    HELD: SYS_recvfrom SYS_setsockopt SYS_sched_setaffinity SYS_getrusage;
    x86_64:
}

calls! {
    /// Files that are made, written and moved.
    WRITING: SYS_pwrite64 SYS_pwritev SYS_ftruncate SYS_fallocate SYS_fsync SYS_fdatasync SYS_flock SYS_mkdirat
        SYS_renameat2 SYS_unlinkat SYS_linkat SYS_symlinkat SYS_fchmod SYS_fchmodat SYS_fchown SYS_fchownat
        SYS_utimensat SYS_umask SYS_copy_file_range SYS_sendfile SYS_msync;
    x86_64: SYS_mkdir SYS_renameat SYS_rename SYS_unlink SYS_rmdir SYS_chmod
}

/// renameat(2) on arm64, for which the `libc` crate has no name with every C library.
#[cfg(target_arch = "aarch64")]
pub const MOVING: &[libc::c_long] = &[38];
/// It is among the others.
#[cfg(not(target_arch = "aarch64"))]
pub const MOVING: &[libc::c_long] = &[];

calls! {
    /// Sockets and descriptors that are waited for.
    SOCKETS: SYS_socket SYS_connect SYS_bind SYS_sendmsg SYS_sendmmsg SYS_recvfrom SYS_recvmsg SYS_recvmmsg
        SYS_getsockopt SYS_setsockopt SYS_getsockname SYS_getpeername SYS_shutdown SYS_eventfd2 SYS_epoll_create1
        SYS_epoll_ctl SYS_epoll_pwait SYS_pipe2 SYS_timerfd_create SYS_timerfd_settime SYS_pselect6;
    x86_64: SYS_select SYS_epoll_wait
}

calls! {
    /// Priorities and CPUs.
    SCHEDULING: SYS_setpriority SYS_getpriority SYS_sched_setscheduler SYS_sched_getscheduler SYS_sched_setaffinity;
    x86_64:
}

calls! {
    /// Another thread.
    THREADS: SYS_clone SYS_clone3 SYS_set_tid_address SYS_prlimit64;
    x86_64: SYS_getrlimit
}

calls! {
    /// Memory that stays, and for a moment may go.
    LOCKING: SYS_mlock SYS_mlockall SYS_munlockall;
    x86_64:
}

calls! {
    /// Signals to other processes.
    SIGNALLING: SYS_kill SYS_pidfd_open SYS_pidfd_send_signal;
    x86_64:
}

calls! {
    /// Other programs: ends the process in every role that lists its calls.
    EXECUTING: SYS_execve SYS_execveat;
    x86_64:
}

calls! {
    /// What no part of execwatch ever calls: other processes' memory, the kernel, mounts, namespaces, clocks, keys, users.
    FORBIDDEN: SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_kexec_load SYS_init_module SYS_finit_module
        SYS_delete_module SYS_bpf SYS_perf_event_open SYS_userfaultfd SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot
        SYS_move_mount SYS_open_tree SYS_fsopen SYS_fsconfig SYS_fsmount SYS_fspick SYS_mount_setattr SYS_unshare
        SYS_setns SYS_swapon SYS_swapoff SYS_reboot SYS_acct SYS_quotactl SYS_settimeofday SYS_clock_settime
        SYS_adjtimex SYS_clock_adjtime SYS_sethostname SYS_setdomainname SYS_add_key SYS_request_key SYS_keyctl
        SYS_setuid SYS_setgid SYS_setreuid SYS_setregid SYS_setresuid SYS_setresgid SYS_setgroups SYS_setfsuid
        SYS_setfsgid SYS_capset SYS_personality SYS_open_by_handle_at SYS_io_uring_setup SYS_io_uring_enter
        SYS_io_uring_register SYS_syslog SYS_vhangup SYS_nfsservctl SYS_lookup_dcookie SYS_kcmp SYS_pidfd_getfd
        SYS_process_madvise SYS_fanotify_init SYS_mbind SYS_migrate_pages SYS_move_pages;
    x86_64: SYS_kexec_file_load SYS_iopl SYS_ioperm SYS_modify_ldt SYS_uselib SYS_ustat SYS_sysfs
        SYS__sysctl
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_role_may_call_what_nobody_may() {
        if SIGNALLING.is_empty() {
            return;
        }
        for role in Role::ALL {
            for responses in [false, true] {
                let Calls::Only(lists) = role.calls(responses) else { continue };
                for call in lists.iter().flat_map(|list| list.iter()) {
                    assert!(!FORBIDDEN.contains(call) && !EXECUTING.contains(call), "{role:?} {call}");
                }
                let signals = lists.iter().any(|list| list.contains(&libc::SYS_kill));
                assert_eq!(signals, responses && matches!(role, Role::Listener | Role::Worker), "{role:?}");
            }
        }
    }
}
