# For the scripts that hand their arguments to src/main.py: . "$root/scripts/usage.sh"; require SNAPSHOT 'EXAMPLE' "$@"

# Runs the program. With --cluster it needs Ray.
main() {
  case " $* " in
    *' --cluster'[\ =]*) exec "$root/scripts/python" --cluster "$root/src/main.py" "$@" ;;
  esac
  exec "$root/scripts/python" "$root/src/main.py" "$@"
}

# Prints the help for --help. Prints the usage and exits with status 2 if the first argument, WHAT, is missing.
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

# Prints what the names of a game's files begin with: pong for roms/pong.bin, my_pkg.envs.ns-A-v0 for my_pkg.envs:ns/A-v0.
# The arguments are the game and the options.
name_of_game() {
  game=$1 kind=rom
  shift
  case $game in
    *-v[0-9] | *-v[0-9][0-9]) [ -f "$game" ] || kind=gym ;;
  esac
  case " $* " in
    *[\ =]gym\ *) kind=gym ;;
  esac
  if [ $kind = gym ]; then
    name=${game#ale_py:}
    printf '%s\n' "${name#ALE/}" | tr ':/' '.-' # all of it, because other modules and namespaces have games of that name
  else
    name=${game##*/} # without its folder
    name=${name%.*}  # and without .bin
    [ -f "$game" ] || name=$(printf '%s' "$name" | tr 'A-Z -' 'a-z__') # as ale-py spells its games
    printf '%s\n' "$name"
  fi
}
