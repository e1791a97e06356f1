# projectcalico/calico#2314, projectcalico/calico#9290: calico's chain of the destination pod drops what no policy passed; marks and two comments in one rule
from ways import *
L = Lab("p06_calico_policy").netns("node", "pod", "back")
pod(L, "node", "pod", "10.244.0.5", "10.244.0.1", "cali1"); pod(L, "node", "back", "10.244.0.6", "10.244.1.1", "calic5f85f41c48")
L.x("node", "sysctl -qw net.ipv4.ip_forward=1")
ipt(L, "node", """*filter
:cali-FORWARD - [0:0]
:cali-to-wl-dispatch - [0:0]
:cali-tw-calic5f85f41c48 - [0:0]
:cali-pi-_DGlcbEzkd1cvh5X1F7M - [0:0]
-A FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD
-A cali-FORWARD -o cali+ -m comment --comment "cali:jxvuJjmmRV135nVu" -j cali-to-wl-dispatch
-A cali-to-wl-dispatch -o calic5f85f41c48 -m comment --comment "cali:0QkiQNgeUPPzkscV" -g cali-tw-calic5f85f41c48
-A cali-tw-calic5f85f41c48 -m comment --comment "cali:63AiEhcKlL4J9x0W" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A cali-tw-calic5f85f41c48 -m comment --comment "cali:U_uF6VQoKAohXmTC" -m conntrack --ctstate INVALID -j DROP
-A cali-tw-calic5f85f41c48 -m comment --comment "cali:11psZo1M6h3_eNzY" -j MARK --set-xmark 0x0/0x10000
-A cali-tw-calic5f85f41c48 -m comment --comment "cali:6lKycZxeeZ1PugZz" -m comment --comment "Start of policies" -j MARK --set-xmark 0x0/0x20000
-A cali-tw-calic5f85f41c48 -m comment --comment "cali:cV0qHtGkHxu9syl8" -m mark --mark 0x0/0x20000 -j cali-pi-_DGlcbEzkd1cvh5X1F7M
-A cali-tw-calic5f85f41c48 -m comment --comment "cali:RLza3_T_hbO5cy7Y" -m comment --comment "Return if policy accepted" -m mark --mark 0x10000/0x10000 -j RETURN
-A cali-tw-calic5f85f41c48 -m comment --comment "cali:RLza2_T_hbO5cy7X" -m comment --comment "Drop if no policies passed packet" -m mark --mark 0x0/0x20000 -j DROP
-A cali-pi-_DGlcbEzkd1cvh5X1F7M -s 10.244.9.0/24 -p tcp -m comment --comment "cali:hb0_cnSGsfhvCBEr" -m multiport --dports 81 -j MARK --set-xmark 0x10000/0x10000
COMMIT
""")
L.pyserve("back", "0.0.0.0", 81)
L.trace("pod")
print(L.x("pod", "curl -sS -m 3 http://10.244.0.6:81/", check=False).stderr)
L.stop(); L.show()
judge(L, L.outcomes(port=81), "calico's chain of the destination pod drops it: no policy passed the packet", ("local_firewall",), ("cali-tw-calic5f85f41c48", "Drop if no policies passed packet"), ("INVALID",), ("certain", "likely"), ("timed_out",))
