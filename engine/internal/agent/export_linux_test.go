package agent

var (
	CheckSocket = checkSocket
	ErrReply    = errReply
)
