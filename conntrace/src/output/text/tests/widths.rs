//! The same lines on screens of several widths.

use super::*;

#[test]
fn on_80_columns() {
    assert_snapshot!(render(text_of_width(Some(80)), &night()), @"
    conntrace 0.1.0 on web-1, kernel 6.18.5: tracepoint tier, 1 of 2 hooks, from
      2026-11-22 08:30:00 UTC
    not seen: packets dropped by this host, packets dropped in other namespaces,
      translated destinations, who sent an ICMPv6 error, attempts without a route,
      denials by this host, binds without a free port (see conntrace doctor)

    TIME      WHAT            WHO                 TO                         AFTER
    08:30:00  stalled         curl[4242]          10.0.0.5:5432             1.02 s
    08:30:00  refused         curl[4242]          10.0.0.5:5432            0.31 ms
              nothing_listening (likely): 10.0.0.5 is up and refuses 5432: nothing
              listens there, or a firewall resets it
              fix: on 10.0.0.5: `ss -ltn 'sport = :5432'` shows whether the server
                   listens, and on which address; start it, or open its firewall
    08:30:01  refused         curl                10.0.0.5:5432            50 more
    08:30:04  timed_out       backup-agent[4242]  10.0.0.5:5432           131.05 s
              possibly silent_host: 10.0.0.5 is off, filtered or a wrong address: no
              traced attempt got an answer from it in the last 131 s (7 SYNs, the
              kernel gave up)
              fix: try another port of 10.0.0.5, and the address itself
    08:30:05  unreachable     a-long…k-nam[4242]
              [2001:db8:1111:2222:3333:4444:5555:6666]:50443              50.00 ms
              admin_prohibited (certain): 10.0.0.1 forbids the connection: ICMP
              administratively prohibited
              fix: allow [2001:db8:1111:2222:3333:4444:5555:6666]:50443 on 10.0.0.1
    08:30:06  refused         curl[4242]          10.0.0.5:5432           50.00 ms
              to db.internal, passed on to 172.17.0.4:5432, in container
              3f2a1b9c8d7e: ECONNREFUSED, RST, cause unknown: no_time
    08:30:07  port_exhausted  curl[4242]          10.0.0.5:5432           50.00 ms
              ephemeral_range_used_up (certain): connections to 10.0.0.5:5432 hold
              28232 of the 28232 ports of the range 32768 60999: 28200 TIME_WAIT, 32
              ESTABLISHED
              fix: `sysctl -w net.ipv4.ip_local_port_range='10000 65535'` adds
                   27,304 ports
    08:30:08  established     curl[4242]          10.0.0.5:5432           50.00 ms
    08:30:09  ports 50 %      netns 7             10.0.0.5:5432
              connections from 10.0.0.2 hold 14100 ports of 32768 to 60999 (50 %):
              14010 TIME_WAIT, 90 ESTABLISHED
    08:30:10  ports free      netns 7             10.0.0.5:5432
              connections from 10.0.0.2 hold 12 ports of 32768 to 60999 (0 %): 9000
              TIME_WAIT, 12 ESTABLISHED; 9000 of these can be reused
    08:30:11  LOST            4 attempts without an outcome (ring_full 3, untracked
                              1), 2 lines not written (stalls 2)
    08:31:00  12 attempts: 4 established, 5 refused, 1 timed_out, 1 in flight, 1
              lost
    08:31:01  stopped (SIGTERM): 12 attempts: 4 established, 5 refused, 1 timed_out,
              1 in flight, 1 lost
    ");
}

#[test]
fn on_100_columns() {
    assert_snapshot!(render(text_of_width(Some(100)), &night()), @"
    conntrace 0.1.0 on web-1, kernel 6.18.5: tracepoint tier, 1 of 2 hooks, from 2026-11-22 08:30:00 UTC
    not seen: packets dropped by this host, packets dropped in other namespaces, translated
      destinations, who sent an ICMPv6 error, attempts without a route, denials by this host, binds
      without a free port (see conntrace doctor)

    TIME      WHAT            WHO                     TO                         AFTER  ERRNO
    08:30:00  stalled         curl[4242]              10.0.0.5:5432             1.02 s
    08:30:00  refused         curl[4242]              10.0.0.5:5432            0.31 ms  ECONNREFUSED
              nothing_listening (likely): 10.0.0.5 is up and refuses 5432: nothing listens there, or a
              firewall resets it
              fix: on 10.0.0.5: `ss -ltn 'sport = :5432'` shows whether the server listens, and on which
                   address; start it, or open its firewall
    08:30:01  refused         curl                    10.0.0.5:5432            50 more  ECONNREFUSED
    08:30:04  timed_out       backup-agent[4242]      10.0.0.5:5432           131.05 s  ETIMEDOUT
              possibly silent_host: 10.0.0.5 is off, filtered or a wrong address: no traced attempt got
              an answer from it in the last 131 s (7 SYNs, the kernel gave up)
              fix: try another port of 10.0.0.5, and the address itself
    08:30:05  unreachable     a-long-task-nam[4242]   [2001:db8:1111:2222:3333:4444:5555:6666]:50443
                                                                              50.00 ms  EHOSTUNREACH
              admin_prohibited (certain): 10.0.0.1 forbids the connection: ICMP administratively
              prohibited
              fix: allow [2001:db8:1111:2222:3333:4444:5555:6666]:50443 on 10.0.0.1
    08:30:06  refused         curl[4242]              10.0.0.5:5432           50.00 ms  ECONNREFUSED
              to db.internal, passed on to 172.17.0.4:5432, in container 3f2a1b9c8d7e: RST, cause
              unknown: no_time
    08:30:07  port_exhausted  curl[4242]              10.0.0.5:5432           50.00 ms  EADDRNOTAVAIL
              ephemeral_range_used_up (certain): connections to 10.0.0.5:5432 hold 28232 of the 28232
              ports of the range 32768 60999: 28200 TIME_WAIT, 32 ESTABLISHED
              fix: `sysctl -w net.ipv4.ip_local_port_range='10000 65535'` adds 27,304 ports
    08:30:08  established     curl[4242]              10.0.0.5:5432           50.00 ms
    08:30:09  ports 50 %      netns 7                 10.0.0.5:5432
              connections from 10.0.0.2 hold 14100 ports of 32768 to 60999 (50 %): 14010 TIME_WAIT, 90
              ESTABLISHED
    08:30:10  ports free      netns 7                 10.0.0.5:5432
              connections from 10.0.0.2 hold 12 ports of 32768 to 60999 (0 %): 9000 TIME_WAIT, 12
              ESTABLISHED; 9000 of these can be reused
    08:30:11  LOST            4 attempts without an outcome (ring_full 3, untracked 1), 2 lines not
                              written (stalls 2)
    08:31:00  12 attempts: 4 established, 5 refused, 1 timed_out, 1 in flight, 1 lost
    08:31:01  stopped (SIGTERM): 12 attempts: 4 established, 5 refused, 1 timed_out, 1 in flight, 1 lost
    ");
}

#[test]
fn on_120_columns() {
    assert_snapshot!(render(text_of_width(Some(120)), &night()), @"
    conntrace 0.1.0 on web-1, kernel 6.18.5: tracepoint tier, 1 of 2 hooks, from 2026-11-22 08:30:00 UTC
    not seen: packets dropped by this host, packets dropped in other namespaces, translated destinations, who sent an ICMPv6
      error, attempts without a route, denials by this host, binds without a free port (see conntrace doctor)

    TIME      WHAT            WHO                     TO                         AFTER  FROM                   ERRNO
    08:30:00  stalled         curl[4242]              10.0.0.5:5432             1.02 s  10.0.0.2:43210
    08:30:00  refused         curl[4242]              10.0.0.5:5432            0.31 ms  10.0.0.2:43210         ECONNREFUSED
              nothing_listening (likely): 10.0.0.5 is up and refuses 5432: nothing listens there, or a firewall resets it
              fix: on 10.0.0.5: `ss -ltn 'sport = :5432'` shows whether the server listens, and on which address; start it,
                   or open its firewall
    08:30:01  refused         curl                    10.0.0.5:5432            50 more                         ECONNREFUSED
    08:30:04  timed_out       backup-agent[4242]      10.0.0.5:5432           131.05 s  10.0.0.2:43210         ETIMEDOUT
              possibly silent_host: 10.0.0.5 is off, filtered or a wrong address: no traced attempt got an answer from it in
              the last 131 s (7 SYNs, the kernel gave up)
              fix: try another port of 10.0.0.5, and the address itself
    08:30:05  unreachable     a-long-task-nam[4242]   [2001:db8:1111:2222:3333:4444:5555:6666]:50443
                                                                              50.00 ms  10.0.0.2:43210         EHOSTUNREACH
              admin_prohibited (certain): 10.0.0.1 forbids the connection: ICMP administratively prohibited
              fix: allow [2001:db8:1111:2222:3333:4444:5555:6666]:50443 on 10.0.0.1
    08:30:06  refused         curl[4242]              10.0.0.5:5432           50.00 ms  10.0.0.2:43210         ECONNREFUSED
              to db.internal, passed on to 172.17.0.4:5432, in container 3f2a1b9c8d7e: RST, cause unknown: no_time
    08:30:07  port_exhausted  curl[4242]              10.0.0.5:5432           50.00 ms  10.0.0.2:*             EADDRNOTAVAIL
              ephemeral_range_used_up (certain): connections to 10.0.0.5:5432 hold 28232 of the 28232 ports of the range
              32768 60999: 28200 TIME_WAIT, 32 ESTABLISHED
              fix: `sysctl -w net.ipv4.ip_local_port_range='10000 65535'` adds 27,304 ports
    08:30:08  established     curl[4242]              10.0.0.5:5432           50.00 ms  10.0.0.2:43210
    08:30:09  ports 50 %      netns 7                 10.0.0.5:5432
              connections from 10.0.0.2 hold 14100 ports of 32768 to 60999 (50 %): 14010 TIME_WAIT, 90 ESTABLISHED
    08:30:10  ports free      netns 7                 10.0.0.5:5432
              connections from 10.0.0.2 hold 12 ports of 32768 to 60999 (0 %): 9000 TIME_WAIT, 12 ESTABLISHED; 9000 of these
              can be reused
    08:30:11  LOST            4 attempts without an outcome (ring_full 3, untracked 1), 2 lines not written (stalls 2)
    08:31:00  12 attempts: 4 established, 5 refused, 1 timed_out, 1 in flight, 1 lost
    08:31:01  stopped (SIGTERM): 12 attempts: 4 established, 5 refused, 1 timed_out, 1 in flight, 1 lost
    ");
}

#[test]
fn on_200_columns() {
    assert_snapshot!(render(text_of_width(Some(200)), &night()), @"
    conntrace 0.1.0 on web-1, kernel 6.18.5: tracepoint tier, 1 of 2 hooks, from 2026-11-22 08:30:00 UTC
    not seen: packets dropped by this host, packets dropped in other namespaces, translated destinations, who sent an ICMPv6 error, attempts without a route, denials by this host, binds without a free
      port (see conntrace doctor)

    TIME      WHAT            WHO                     TO                         AFTER  FROM                   ERRNO          WHY
    08:30:00  stalled         curl[4242]              10.0.0.5:5432             1.02 s  10.0.0.2:43210
    08:30:00  refused         curl[4242]              10.0.0.5:5432            0.31 ms  10.0.0.2:43210         ECONNREFUSED   nothing_listening (likely): 10.0.0.5 is up and refuses 5432: nothing listens
                                                                                                                              there, or a firewall resets it
              fix: on 10.0.0.5: `ss -ltn 'sport = :5432'` shows whether the server listens, and on which address; start it, or open its firewall
    08:30:01  refused         curl                    10.0.0.5:5432            50 more                         ECONNREFUSED   nothing_listening (likely)
    08:30:04  timed_out       backup-agent[4242]      10.0.0.5:5432           131.05 s  10.0.0.2:43210         ETIMEDOUT      possibly silent_host: 10.0.0.5 is off, filtered or a wrong address: no traced
                                                                                                                              attempt got an answer from it in the last 131 s (7 SYNs, the kernel gave up)
              fix: try another port of 10.0.0.5, and the address itself
    08:30:05  unreachable     a-long-task-nam[4242]   [2001:db8:1111:2222:3333:4444:5555:6666]:50443
                                                                              50.00 ms  10.0.0.2:43210         EHOSTUNREACH   admin_prohibited (certain): 10.0.0.1 forbids the connection: ICMP
                                                                                                                              administratively prohibited
              fix: allow [2001:db8:1111:2222:3333:4444:5555:6666]:50443 on 10.0.0.1
    08:30:06  refused         curl[4242]              10.0.0.5:5432           50.00 ms  10.0.0.2:43210         ECONNREFUSED   to db.internal, passed on to 172.17.0.4:5432, in container 3f2a1b9c8d7e: RST,
                                                                                                                              cause unknown: no_time
    08:30:07  port_exhausted  curl[4242]              10.0.0.5:5432           50.00 ms  10.0.0.2:*             EADDRNOTAVAIL  ephemeral_range_used_up (certain): connections to 10.0.0.5:5432 hold 28232 of
                                                                                                                              the 28232 ports of the range 32768 60999: 28200 TIME_WAIT, 32 ESTABLISHED
              fix: `sysctl -w net.ipv4.ip_local_port_range='10000 65535'` adds 27,304 ports
    08:30:08  established     curl[4242]              10.0.0.5:5432           50.00 ms  10.0.0.2:43210
    08:30:09  ports 50 %      netns 7                 10.0.0.5:5432                                                           connections from 10.0.0.2 hold 14100 ports of 32768 to 60999 (50 %): 14010
                                                                                                                              TIME_WAIT, 90 ESTABLISHED
    08:30:10  ports free      netns 7                 10.0.0.5:5432                                                           connections from 10.0.0.2 hold 12 ports of 32768 to 60999 (0 %): 9000
                                                                                                                              TIME_WAIT, 12 ESTABLISHED; 9000 of these can be reused
    08:30:11  LOST            4 attempts without an outcome (ring_full 3, untracked 1), 2 lines not written (stalls 2)
    08:31:00  12 attempts: 4 established, 5 refused, 1 timed_out, 1 in flight, 1 lost
    08:31:01  stopped (SIGTERM): 12 attempts: 4 established, 5 refused, 1 timed_out, 1 in flight, 1 lost
    ");
}

#[test]
fn on_a_window_of_40_columns() {
    assert_snapshot!(render(text_of_width(Some(40)), &night()[..5]), @"
    conntrace 0.1.0 on web-1, kernel 6.18.5:
      tracepoint tier, 1 of 2 hooks, from
      2026-11-22 08:30:00 UTC
    not seen: packets dropped by this host,
      packets dropped in other namespaces,
      translated destinations, who sent an
      ICMPv6 error, attempts without a
      route, denials by this host, binds
      without a free port (see conntrace
      doctor)

    TIME      WHAT            WHO
              TO
              AFTER
    08:30:00  stalled         curl[4242]
              10.0.0.5:5432
              1.02 s
    08:30:00  refused         curl[4242]
              10.0.0.5:5432
              0.31 ms
              nothing_listening (likely):
              10.0.0.5 is up and refuses
              5432: nothing listens there,
              or a firewall resets it
              fix: on 10.0.0.5: `ss -ltn
                   'sport = :5432'` shows
                   whether the server
                   listens, and on which
                   address; start it, or
                   open its firewall
    08:30:00  refused         curl
              10.0.0.5:5432
              2 more
    ");
    let narrower = render(text_of_width(Some(7)), &night());
    assert_eq!(narrower, render(text_of_width(Some(40)), &night()));
}

/// Without a terminal nothing wraps and nothing is shortened.
#[test]
fn in_a_pipe() {
    assert_snapshot!(render(text_of_width(None), &night()), @"
    conntrace 0.1.0 on web-1, kernel 6.18.5: tracepoint tier, 1 of 2 hooks, from 2026-11-22 08:30:00 UTC
    not seen: packets dropped by this host, packets dropped in other namespaces, translated destinations, who sent an ICMPv6 error, attempts without a route, denials by this host, binds without a free port (see conntrace doctor)

    TIME      WHAT            WHO                     TO                         AFTER  FROM                   ERRNO          WHY
    08:30:00  stalled         curl[4242]              10.0.0.5:5432             1.02 s  10.0.0.2:43210
    08:30:00  refused         curl[4242]              10.0.0.5:5432            0.31 ms  10.0.0.2:43210         ECONNREFUSED   nothing_listening (likely): 10.0.0.5 is up and refuses 5432: nothing listens there, or a firewall resets it
              fix: on 10.0.0.5: `ss -ltn 'sport = :5432'` shows whether the server listens, and on which address; start it, or open its firewall
    08:30:01  refused         curl                    10.0.0.5:5432            50 more                         ECONNREFUSED   nothing_listening (likely)
    08:30:04  timed_out       backup-agent[4242]      10.0.0.5:5432           131.05 s  10.0.0.2:43210         ETIMEDOUT      possibly silent_host: 10.0.0.5 is off, filtered or a wrong address: no traced attempt got an answer from it in the last 131 s (7 SYNs, the kernel gave up)
              fix: try another port of 10.0.0.5, and the address itself
    08:30:05  unreachable     a-long-task-nam[4242]   [2001:db8:1111:2222:3333:4444:5555:6666]:50443 50.00 ms 10.0.0.2:43210 EHOSTUNREACH
                                                                                                                              admin_prohibited (certain): 10.0.0.1 forbids the connection: ICMP administratively prohibited
              fix: allow [2001:db8:1111:2222:3333:4444:5555:6666]:50443 on 10.0.0.1
    08:30:06  refused         curl[4242]              10.0.0.5:5432           50.00 ms  10.0.0.2:43210         ECONNREFUSED   to db.internal, passed on to 172.17.0.4:5432, in container 3f2a1b9c8d7e: RST, cause unknown: no_time
    08:30:07  port_exhausted  curl[4242]              10.0.0.5:5432           50.00 ms  10.0.0.2:*             EADDRNOTAVAIL  ephemeral_range_used_up (certain): connections to 10.0.0.5:5432 hold 28232 of the 28232 ports of the range 32768 60999: 28200 TIME_WAIT, 32 ESTABLISHED
              fix: `sysctl -w net.ipv4.ip_local_port_range='10000 65535'` adds 27,304 ports
    08:30:08  established     curl[4242]              10.0.0.5:5432           50.00 ms  10.0.0.2:43210
    08:30:09  ports 50 %      netns 7                 10.0.0.5:5432                                                           connections from 10.0.0.2 hold 14100 ports of 32768 to 60999 (50 %): 14010 TIME_WAIT, 90 ESTABLISHED
    08:30:10  ports free      netns 7                 10.0.0.5:5432                                                           connections from 10.0.0.2 hold 12 ports of 32768 to 60999 (0 %): 9000 TIME_WAIT, 12 ESTABLISHED; 9000 of these can be reused
    08:30:11  LOST            4 attempts without an outcome (ring_full 3, untracked 1), 2 lines not written (stalls 2)
    08:31:00  12 attempts: 4 established, 5 refused, 1 timed_out, 1 in flight, 1 lost
    08:31:01  stopped (SIGTERM): 12 attempts: 4 established, 5 refused, 1 timed_out, 1 in flight, 1 lost
    ");
}
