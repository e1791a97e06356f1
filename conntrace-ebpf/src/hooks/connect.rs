//! Hooks on the functions that connect calls: policy first, then TCP, which looks up a route.

use super::function;

// proto: security_socket_connect(struct socket *sock, struct sockaddr *address, int addrlen)
function!(
    Connect,
    Socket,
    Outer,
    fexit_security_socket_connect,
    fexit_second_security_socket_connect,
    kprobe_security_socket_connect,
    kretprobe_security_socket_connect
);

// Cgroup BPF programs run in these functions.
// proto (< 6.19): tcp_v4_pre_connect(struct sock *sk, struct sockaddr *uaddr, int addr_len)
// proto (>= 6.19): tcp_v4_pre_connect(struct sock *sk, struct sockaddr_unsized *uaddr, int addr_len)
function!(
    Connect,
    Sock,
    Outer,
    fexit_tcp_v4_pre_connect,
    fexit_second_tcp_v4_pre_connect,
    kprobe_tcp_v4_pre_connect,
    kretprobe_tcp_v4_pre_connect
);

// proto (< 6.19): tcp_v6_pre_connect(struct sock *sk, struct sockaddr *uaddr, int addr_len)
// proto (>= 6.19): tcp_v6_pre_connect(struct sock *sk, struct sockaddr_unsized *uaddr, int addr_len)
function!(
    Connect,
    Sock,
    Outer,
    fexit_tcp_v6_pre_connect,
    fexit_second_tcp_v6_pre_connect,
    kprobe_tcp_v6_pre_connect,
    kretprobe_tcp_v6_pre_connect
);

// proto (< 6.19): tcp_v4_connect(struct sock *sk, struct sockaddr *uaddr, int addr_len)
// proto (>= 6.19): tcp_v4_connect(struct sock *sk, struct sockaddr_unsized *uaddr, int addr_len)
function!(
    Connect,
    Sock,
    Inner,
    fexit_tcp_v4_connect,
    fexit_second_tcp_v4_connect,
    kprobe_tcp_v4_connect,
    kretprobe_tcp_v4_connect
);

// proto (< 6.19): tcp_v6_connect(struct sock *sk, struct sockaddr *uaddr, int addr_len)
// proto (>= 6.19): tcp_v6_connect(struct sock *sk, struct sockaddr_unsized *uaddr, int addr_len)
function!(
    Connect,
    Sock,
    Outer,
    fexit_tcp_v6_connect,
    fexit_second_tcp_v6_connect,
    kprobe_tcp_v6_connect,
    kretprobe_tcp_v6_connect
);
