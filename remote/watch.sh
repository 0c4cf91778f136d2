# The supervisor alone, for jobs that brief.sh starts.

gl_id=${2:-}
gl_job=$gl_jobs/$gl_id
detach
case ${1:-} in
supervise) supervise "$3" "${4:-0}" ;;
scope) scope "$3" ;;
esac
