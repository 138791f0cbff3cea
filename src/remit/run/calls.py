"""The system calls that a run may make. Everything else fails, also what a later kernel adds.

The model is the profile that Docker gives containers without capabilities. Unlike it:

- no io_uring, which makes sockets and sets their options without those calls;
- sockets are unix, internet, netlink and packet alone: vsock reaches the host of a virtual machine;
- no SO_LINGER: whoever closes the last copy of such a socket waits, and a run can pass it to the broker;
- nothing that tells file handles, local descriptor tables or memory of other kinds.

Keyrings, as there: a user's can be found by its number from any namespace with the same uid. Namespaces and mounts only
where runs may be launched inside: in a user namespace of its own a run is root over much of the kernel.
"""

from __future__ import annotations

import errno

from remit.process import seccomp
from remit.process.seccomp import allow, arg, refuse

FAMILIES = (1, 2, 10, 16, 17)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET
PERSONALITIES = (0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)  # Linux, its 32-bit half, uname as of 2.6; to be told which
_SOL_SOCKET, _SO_LINGER = 1, 13
_NEW = 0x7E020000  # every CLONE_NEW… flag that clone knows
_NAMESPACES = "unshare setns mount umount2 pivot_root chroot sethostname"

_FILES = (
    "access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 "
    "fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr "
    "flock fremovexattr fsetxattr fstat fstatfs fsync ftruncate futimesat getcwd getdents getdents64 getxattr "
    "getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch ioctl lchown lgetxattr link linkat "
    "listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat mkdir mkdirat mknod mknodat newfstatat "
    "open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink "
    "readlinkat readv removexattr removexattrat rename renameat renameat2 rmdir sendfile setxattr setxattrat "
    "splice stat statfs statx symlink symlinkat sync sync_file_range syncfs tee truncate umask unlink unlinkat "
    "utime utimensat utimes vmsplice write writev"
)
_WAITS = (
    "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old "
    "eventfd eventfd2 io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit poll ppoll pselect6 "
    "select signalfd signalfd4 timerfd_create timerfd_gettime timerfd_settime"
)
_TALKS = (
    "accept accept4 bind connect getpeername getsockname getsockopt listen mq_getsetattr mq_notify mq_open "
    "mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd recvfrom recvmmsg recvmsg semctl semget "
    "semop semtimedop sendmmsg sendmsg sendto setsockopt shmat shmctl shmdt shmget shutdown socketpair"
)
_MEMORY = (
    "brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall "
    "mmap mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect "
    "remap_file_pages"
)
_PROCESSES = (
    "arch_prctl capget capset execve execveat exit exit_group fork futex futex_requeue futex_wait futex_waitv "
    "futex_wake get_robust_list get_thread_area getcpu getegid geteuid getgid getgroups getpgid getpgrp getpid "
    "getppid getpriority getresgid getresuid getrlimit getrusage getsid gettid getuid ioprio_get ioprio_set kill "
    "landlock_add_rule landlock_create_ruleset landlock_restrict_self pause pidfd_open pidfd_send_signal prctl "
    "prlimit64 process_mrelease process_vm_readv process_vm_writev ptrace restart_syscall rseq rt_sigaction "
    "rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo "
    "sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam "
    "sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler "
    "sched_yield seccomp set_robust_list set_thread_area set_tid_address setfsgid setfsuid setgid setgroups "
    "setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid setuid sigaltstack sysinfo tgkill "
    "times tkill uname uretprobe vfork wait4 waitid"
)
_TIME = (
    "adjtimex alarm clock_adjtime clock_getres clock_gettime clock_nanosleep getitimer getrandom gettimeofday "
    "nanosleep setitimer time timer_create timer_delete timer_getoverrun timer_gettime timer_settime"
)
_RULES = (
    refuse(errno.ENOPROTOOPT, "setsockopt", arg(1, _SOL_SOCKET), arg(2, _SO_LINGER)),
    *(allow(calls) for calls in (_FILES, _WAITS, _TALKS, _MEMORY, _PROCESSES, _TIME)),
    allow("socket", arg(0, *FAMILIES)),
    refuse(errno.EAFNOSUPPORT, "socket"),
    allow("personality", arg(0, *PERSONALITIES)),
    refuse(errno.EPERM, "personality"),
)
_ALONE = (allow("clone", arg(0, 0, mask=_NEW)), refuse(errno.EPERM, f"clone {_NAMESPACES}"))
_AROUND = (allow(f"clone {_NAMESPACES}"),)


def program(machine: str, *, nests: bool) -> bytes | None:
    """Return the filter for ``os.uname().machine``; None where the numbers are not known.

    ``nests``: runs may be launched inside. What is not allowed is unknown (ENOSYS), so that libraries fall back to what
    is: of ``clone3`` no filter can see the flags.
    """
    return seccomp.program(machine, (*_RULES, *(_AROUND if nests else _ALONE)), otherwise=errno.ENOSYS)
