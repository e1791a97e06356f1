# tailscale/tailscale#1164, #16158: --accept-routes takes a route to the host's own LAN: rule 5270, table 52, device tailscale0 win over eth0's connected route
from ways import *
L = Lab("p25_tailscale_own_lan").netns("a", "nas")
L.link("a", "eth0", "192.168.1.103/24", "nas", "eth0", "192.168.1.50/24")
L.bg("a", "python3 -c 'import fcntl,struct,time;f=open(\"/dev/net/tun\",\"r+b\",0);fcntl.ioctl(f,0x400454ca,struct.pack(\"16sH\",b\"tailscale0\",0x1001));time.sleep(1000)'", wait=0.6)
L.x("a", "ip addr add 100.71.166.52/32 dev tailscale0; ip link set tailscale0 up; ip route add 192.168.1.0/24 dev tailscale0 table 52; ip rule add pref 5210 fwmark 0x80000/0xff0000 lookup main; ip rule add pref 5230 fwmark 0x80000/0xff0000 lookup default; ip rule add pref 5250 fwmark 0x80000/0xff0000 unreachable; ip rule add pref 5270 lookup 52")
L.pyserve("nas", "192.168.1.50", 445)
L.trace("a")
print(L.x("a", "curl -sS -m 3 http://192.168.1.50:445/; ip route get 192.168.1.50", check=False))
L.stop(); L.show()
judge(L, L.outcomes(port=445), "table 52 (rule 5270) sends 192.168.1.0/24 into tailscale0, though eth0 is in that network", ("wrong_network",), ("tailscale0", ("table 52", "5270"), "eth0"), ("start the host",), ("likely", "certain"), ("timed_out",))
