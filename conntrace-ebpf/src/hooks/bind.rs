//! Hooks on bind of IPv4 and IPv6 sockets.

use super::function;

// proto (< 6.19): inet_bind(struct socket *sock, struct sockaddr *uaddr, int addr_len)
// proto (>= 6.19): inet_bind(struct socket *sock, struct sockaddr_unsized *uaddr, int addr_len)
function!(
    Bind,
    Socket,
    Outer,
    fexit_inet_bind,
    fexit_second_inet_bind,
    kprobe_inet_bind,
    kretprobe_inet_bind
);

// proto (< 6.19): inet6_bind(struct socket *sock, struct sockaddr *uaddr, int addr_len)
// proto (>= 6.19): inet6_bind(struct socket *sock, struct sockaddr_unsized *uaddr, int addr_len)
function!(
    Bind,
    Socket,
    Outer,
    fexit_inet6_bind,
    fexit_second_inet6_bind,
    kprobe_inet6_bind,
    kretprobe_inet6_bind
);
