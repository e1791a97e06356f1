# psviderski/uncloud#293, moby/moby#51015: Docker 28's raw PREROUTING drops what comes to a container by the VPN's device, before DOCKER-USER sees it
from ways import *
L = Lab("p12_docker28_raw").netns("host", "web", "peer")
L.link("peer", "wg0", "10.210.0.2/24", "host", "uncloud", "10.210.0.1/24"); bridge(L, "host", "br-15fc2fdf8f2c", "10.210.1.1", web="10.210.1.24")
L.x("host", "sysctl -qw net.ipv4.ip_forward=1"); L.x("peer", "ip route add 10.210.1.0/24 via 10.210.0.1")
ipt(L, "host", """*raw
-A PREROUTING -d 10.210.1.24/32 ! -i br-15fc2fdf8f2c -j DROP
COMMIT
*filter
:DOCKER-USER - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-CT - [0:0]
:DOCKER-BRIDGE - [0:0]
:DOCKER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER-USER -i uncloud -o br-15fc2fdf8f2c -j ACCEPT
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -j DOCKER-BRIDGE
-A DOCKER-CT -o br-15fc2fdf8f2c -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-BRIDGE -o br-15fc2fdf8f2c -j DOCKER
-A DOCKER ! -i br-15fc2fdf8f2c -o br-15fc2fdf8f2c -j DROP
COMMIT
""")
L.pyserve("web", "0.0.0.0", 8080)
L.trace("peer")
print(L.x("peer", "curl -sS -m 3 http://10.210.1.24:8080/", check=False).stderr)
L.stop(); L.show()
judge(L, L.outcomes(port=8080), "dropped in table raw, chain PREROUTING, on arrival from uncloud; not in DOCKER, which would drop it too", ("local_firewall",), ("raw", "PREROUTING"), ("chain DOCKER ", "chain DOCKER,", "private_address"), ("certain",), ("timed_out",))
