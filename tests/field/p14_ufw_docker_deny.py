# chaifeng/ufw-docker#156, #53: ufw-docker's own chain in DOCKER-USER drops what comes from outside to a published port, after DNAT
from ways import *
L = Lab("p14_ufw_docker_deny").netns("host", "web", "out")
L.link("out", "eth0", "203.0.113.9/24", "host", "eth0", "203.0.113.10/24"); bridge(L, "host", "docker0", "172.17.0.1", web="172.17.0.2")
L.x("host", "sysctl -qw net.ipv4.ip_forward=1")
ipt(L, "host", """*filter
:FORWARD DROP [0:0]
:DOCKER-USER - [0:0]
:DOCKER - [0:0]
:ufw-user-forward - [0:0]
:ufw-docker-logging-deny - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-USER -j ufw-user-forward
-A DOCKER-USER -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
-A DOCKER-USER -m conntrack --ctstate INVALID -j DROP
-A DOCKER-USER -i docker0 -o docker0 -j ACCEPT
-A DOCKER-USER -s 10.0.0.0/8 -j RETURN
-A DOCKER-USER -s 172.16.0.0/12 -j RETURN
-A DOCKER-USER -s 192.168.0.0/16 -j RETURN
-A DOCKER-USER -d 172.16.0.0/12 -m conntrack --ctstate NEW -j ufw-docker-logging-deny
-A DOCKER-USER -j RETURN
-A ufw-docker-logging-deny -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix "[UFW DOCKER BLOCK] "
-A ufw-docker-logging-deny -j DROP
COMMIT
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
COMMIT
""")
L.pyserve("web", "0.0.0.0", 80)
L.trace("out")
print(L.x("out", "curl -sS -m 3 http://203.0.113.10:8080/", check=False).stderr)
L.stop(); L.show()
judge(L, L.outcomes(port=8080), "translated to 172.17.0.2:80, then dropped by ufw-docker-logging-deny; ufw route allow ... port 80", ("local_firewall",), ("ufw-docker-logging-deny", "172.17.0.2"), ("INVALID", "policy"), ("certain", "likely"), ("timed_out",))
