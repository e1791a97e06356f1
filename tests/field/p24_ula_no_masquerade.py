# moby/moby#20559, docker/roadmap#862: a container with a ULA address and no IPv6 NAT asks for a global address: its SYN leaves with fd00::/8 as source, no answer can come back
from ways import *
L = Lab("p24_ula_no_masquerade").netns("host", "c", "net")
L.link("host", "eth0", "2001:db8:1::2/64", "net", "eth0", "2001:db8:1::1/64"); L.link("host", "docker0", "fd00:dead:beef::1/64", "c", "eth0", "fd00:dead:beef::2/64")
L.x("host", "sysctl -qw net.ipv6.conf.all.forwarding=1; ip -6 route add default via 2001:db8:1::1"); L.x("c", "ip -6 route add default via fd00:dead:beef::1")
L.x("net", "ip -6 addr add 2001:db8:99::80/128 dev lo nodad"); L.pyserve("net", "2001:db8:99::80", 443)
L.trace("c")
print(L.x("c", "curl -sS -m 3 'http://[2001:db8:99::80]:443/'", check=False).stderr)
L.stop(); L.show()
judge(L, L.outcomes(port=443), "source fd00:dead:beef::2 (ULA) to a global address, and this host masquerades nothing: no answer can find back", ("wrong_source",), ("fd00:dead:beef::2",), ("silent_host",), ("certain", "likely", "possible"), ("timed_out",))
