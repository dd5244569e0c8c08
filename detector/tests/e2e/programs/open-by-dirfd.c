/* open-by-dirfd FOLDER PATH: creates PATH relative to an open FOLDER, as programs do that hold on to a directory. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	if (argc != 3) {
		fprintf(stderr, "usage: open-by-dirfd FOLDER PATH\n");
		return 2;
	}
	int folder = open(argv[1], O_PATH | O_DIRECTORY);
	if (folder < 0) {
		perror(argv[1]);
		return 2;
	}
	if (openat(folder, argv[2], O_WRONLY | O_CREAT, 0644) < 0) {
		perror(argv[2]);
		return 1;
	}
	return 0;
}
