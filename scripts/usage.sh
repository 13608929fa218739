# For the scripts that hand their arguments to src/main.py: . "$root/scripts/usage.sh"; require SNAPSHOT 'EXAMPLE' "$@"

main() { exec "$root/scripts/python" "$root/src/main.py" "$@"; }

# Shows the help, or ends with how the script is used if its first argument, WHAT, is missing.
require() {
  what=$1 example=$2
  shift 2
  case ${1-} in
    -h | --help) main --help ;;
    '' | -* | @*)
      echo "usage: ./${0##*/} $what [options]     (--help lists the options)" >&2
      echo "example: ./${0##*/} $example" >&2
      exit 2
      ;;
  esac
}

# Prints the name in a snapshot's path: pong_slow of snapshots/pong_slow_10.pkl.
name_of() {
  name=${1##*/}   # without its folder
  name=${name%.*} # and without .pkl
  case ${name##*_} in
    *[!0-9]*) ;;
    *) name=${name%_*} ;; # without the epoch
  esac
  printf '%s\n' "$name"
}
