# look at the agent
[ -z "$unit" ] || systemctl is-active --quiet "$unit.service" || echo "$unit does not run"
