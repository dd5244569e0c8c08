/* clear-readonly PATH: makes the mount at PATH writable by mount_setattr(2) (kernel 5.12), without a mount(2). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/mount.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct mount_attr attributes = { .attr_clr = MOUNT_ATTR_RDONLY };

	if (argc != 2) {
		fprintf(stderr, "usage: clear-readonly PATH\n");
		return 2;
	}
	if (syscall(SYS_mount_setattr, AT_FDCWD, argv[1], 0, &attributes, sizeof(attributes)) < 0) {
		perror(argv[1]);
		return 1;
	}
	return 0;
}
