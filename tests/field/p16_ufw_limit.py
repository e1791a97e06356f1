# appleboy/scp-action#172, savchenko/debian#18: `ufw limit ssh`: the sixth connection within 30 s is rejected in ufw-user-limit. sshd accepts, and accepted moments ago
from ways import *
L = Lab("p16_ufw_limit").netns("host", "ci")
L.link("ci", "eth0", "198.51.100.2/24", "host", "eth0", "198.51.100.1/24")
ipt(L, "host", open(os.path.dirname(os.path.abspath(__file__)) + "/ufw.rules").read())
L.pyserve("host", "0.0.0.0", 22)
L.trace("ci")
print(L.x("ci", "for i in 1 2 3 4 5 6; do curl -sS -m 2 -o /dev/null http://198.51.100.1:22/; done", check=False).stderr)
L.stop(); L.show()
o = [x for x in L.outcomes(port=22) if x["label"] != "established"]
judge(L, o, "the sixth within 30 s: ufw's limit rejects, sshd listens", ("rejected_by_firewall",), ("ufw-user-limit",), ("nothing listens", "start the server"), ("certain", "likely"), ("refused",))
