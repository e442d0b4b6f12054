/* sfq - the command line. Only the entry lives here: the rest is a library (sfq_program), so that
 * the fault tests can link the same sources behind an entry of their own. */
#include "program.h"

int main(int argc, char **argv)
{
    return cli_main(argc, argv);
}
