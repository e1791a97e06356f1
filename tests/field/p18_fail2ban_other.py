# fail2ban/fail2ban#3261 kind, control: fail2ban's reject rule is there with another address in its set; sshd is simply not running
from ways import *
L = Lab("p18_fail2ban_other").netns("srv", "me")
L.link("me", "eth0", "100.72.92.101/24", "srv", "eth0", "100.72.92.1/24")
nft(L, "srv", """table inet f2b-table {
  set addr-set-sshd { type ipv4_addr; elements = { 192.0.2.1, 100.72.92.102 } }
  chain f2b-chain { type filter hook input priority filter - 1; policy accept; tcp dport { 22 } ip saddr @addr-set-sshd reject with icmp port-unreachable; }
}
""")
L.pyserve("srv", "0.0.0.0", 80)
L.trace("me")
print(L.x("me", "curl -sS -m 3 http://100.72.92.1:22/", check=False).stderr)
L.stop(); L.show()
judge(L, L.outcomes(port=22), "nothing listens on 22; the client is not banned", ("nothing_listening",), (), ("f2b", "fail2ban"), ("certain",), ("refused",))
