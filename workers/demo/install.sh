# Installs a Debian package without starting its service, now or at boot.
# $1 is the policy file that maintainer scripts consult (RUNLEVEL=1 no longer prevents a start). An existing
# policy file stays unchanged and must already forbid the start.
# $2 is the package; its service has the same name.
set -eu
exec 1>&2
policy=$1
package=$2
mark='made by rollcall demo, which removes it'
if [ ! -e "$policy" ] && [ ! -L "$policy" ] || grep -qs "$mark" "$policy"; then
    trap 'rm -f -- "$policy"' EXIT
    trap 'exit 130' HUP INT TERM
    printf '#!/bin/sh\n# %s\nexit 101\n' "$mark" > "$policy"
    chmod 755 "$policy"
elif [ -x "$policy" ]; then
    answer=0
    "$policy" "$package.service" start > /dev/null 2>&1 || answer=$?
    if [ "$answer" -ne 101 ]; then
        echo "$policy would let the packaged service start; install $package yourself"
        exit 1
    fi
else
    echo "$policy is in the way and not executable; install $package yourself"
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y -qq --no-install-recommends "$package"; }
install || { apt-get update -qq && install; }
update-rc.d "$package" disable > /dev/null 2>&1 || true
