# fail2ban/fail2ban#2183 kind, nftables action: the client's address is in addr-set-sshd; f2b-chain rejects with port unreachable, sshd listens
from ways import *
L = Lab("p17_fail2ban_set").netns("srv", "me")
L.link("me", "eth0", "100.72.92.101/24", "srv", "eth0", "100.72.92.1/24")
nft(L, "srv", """table inet f2b-table {
  set addr-set-sshd { type ipv4_addr; elements = { 192.0.2.1, 100.72.92.101 } }
  chain f2b-chain { type filter hook input priority filter - 1; policy accept; tcp dport { 22 } ip saddr @addr-set-sshd reject with icmp port-unreachable; }
}
""")
L.pyserve("srv", "0.0.0.0", 22)
L.trace("me")
print(L.x("me", "curl -sS -m 3 http://100.72.92.1:22/", check=False).stderr)
L.stop(); L.show()
judge(L, L.outcomes(port=22), "fail2ban has banned 100.72.92.101: fail2ban-client set sshd unbanip 100.72.92.101", ("rejected_by_firewall",), ("f2b-table", "f2b-chain", "fail2ban"), ("nothing listens", "ADDRESS"), ("certain",), ("refused",))
