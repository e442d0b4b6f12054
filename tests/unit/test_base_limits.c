/* Processor and memory limits read from made-up /proc and /sys trees: cgroup versions 1 and 2,
 * limits at ancestors, containers that mount a part of the hierarchy, cores with two threads. */
#include "base/limits.h"

#include "base/pool.h"
#include "unit/unit.h"

static char dir[SCRATCH_ROOM];

static int setup(void **state)
{
    (void)state;
    scratch_open(dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_close(dir);
    return 0;
}

#define V2_MOUNT "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"

static void expect_cpus(double quota)
{
    double found = sfq_limits_cpu_quota(dir);
    if (found < quota - 1e-9 || found > quota + 1e-9)
        fail_msg("quota %g, expected %g", found, quota);
}

static void expect_rest(uint64_t rest)
{
    uint64_t found = sfq_limits_memory_rest(dir);
    if (found != rest)
        fail_msg("memory %llu, expected %llu", (unsigned long long)found, (unsigned long long)rest);
}

static void nothing_there(void **state)
{
    (void)state;
    expect_cpus(0);
    expect_rest(UINT64_MAX);
    assert_true(sfq_limits_field(dir, "/proc/meminfo", "MemAvailable:") == UINT64_MAX);
    sfq_cpu_mask mask = {{0x3F}};
    assert_int_equal(sfq_limits_cores(dir, &mask), 6); /* topology unknown: each is a core */
}

static void version_2(void **state)
{
    (void)state;
    scratch_put(dir, "proc/self/cgroup", "0::/user.slice/job\n");
    scratch_put(dir, "proc/self/mountinfo", "25 1 8:1 / / rw - ext4 /dev/sda1 rw\n" V2_MOUNT);
    scratch_put(dir, "sys/fs/cgroup/user.slice/job/cpu.max", "max 100000\n");
    expect_cpus(0);
    scratch_put(dir, "sys/fs/cgroup/user.slice/cpu.max", "350000 100000\n"); /* the ancestor's */
    expect_cpus(3.5);
    scratch_put(dir, "sys/fs/cgroup/user.slice/job/cpu.max", "150000 100000\n");
    expect_cpus(1.5);
    scratch_put(dir, "sys/fs/cgroup/cpu.max", "50000 100000\n"); /* the mount point itself */
    expect_cpus(0.5);
    scratch_put(dir, "sys/fs/cpu.max", "10000 100000\n"); /* above it: not ours */
    expect_cpus(0.5);

    scratch_put(dir, "sys/fs/cgroup/user.slice/job/memory.max", "max\n");
    scratch_put(dir, "sys/fs/cgroup/user.slice/job/memory.current", "1000\n");
    expect_rest(UINT64_MAX);
    scratch_put(dir, "sys/fs/cgroup/user.slice/memory.max", "10000\n");
    scratch_put(dir, "sys/fs/cgroup/user.slice/memory.current", "7000\n");
    expect_rest(3000);
    scratch_put(dir, "sys/fs/cgroup/user.slice/memory.stat",
                "anon 1\ninactive_file_not 5\ninactive_file 2500\n");
    expect_rest(5500);
    scratch_put(dir, "sys/fs/cgroup/user.slice/memory.current", "20000\n");
    expect_rest(0);
}

static void version_1(void **state)
{
    (void)state;
    scratch_put(dir, "proc/self/cgroup",
                "5:cpuset:/wrong\n4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n0::/\n");
    scratch_put(dir, "proc/self/mountinfo",
                "31 24 0:27 / /sys/fs/cgroup/cpuset rw shared:9 - cgroup cgroup rw,cpuset\n"
                "32 24 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup "
                "rw,cpu,cpuacct\n"
                "33 24 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
    scratch_put(dir, "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "-1\n");
    scratch_put(dir, "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n");
    expect_cpus(0);
    scratch_put(dir, "sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us", "200000\n");
    scratch_put(dir, "sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_period_us", "50000\n");
    expect_cpus(4);
    scratch_put(dir, "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes",
                "9223372036854771712\n"); /* version 1's "none" */
    scratch_put(dir, "sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes", "5\n");
    expect_rest(UINT64_MAX);
    scratch_put(dir, "sys/fs/cgroup/memory/memory.limit_in_bytes", "800\n");
    scratch_put(dir, "sys/fs/cgroup/memory/memory.usage_in_bytes", "300\n");
    scratch_put(dir, "sys/fs/cgroup/memory/memory.stat",
                "inactive_file 1\ntotal_inactive_file 100\n");
    expect_rest(600);
}

/* The container's mount shows only its own part: mountinfo's root is that part's path. */
static void container_mount(void **state)
{
    (void)state;
    scratch_put(dir, "proc/self/cgroup", "0::/docker/abc/inner\n");
    scratch_put(dir, "proc/self/mountinfo",
                "30 24 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
    scratch_put(dir, "sys/fs/cgroup/cpu.max", "200000 100000\n");
    expect_cpus(2);
    scratch_put(dir, "sys/fs/cgroup/inner/cpu.max", "100000 100000\n");
    expect_cpus(1);
    /* a group outside of what is mounted, or above the namespace: the mount point is what we see */
    scratch_put(dir, "proc/self/cgroup", "0::/docker/abcdef\n");
    expect_cpus(2);
    scratch_put(dir, "proc/self/cgroup", "0::/../other\n");
    scratch_put(dir, "proc/self/mountinfo", V2_MOUNT);
    expect_cpus(2);
}

static void damaged_files(void **state)
{
    (void)state;
    static const char *const junk[] = {
        "", "\n", "0::", "0", "::::\n", "- - - -\n", "x - cgroup2\n", "30 24 - cgroup2 a b\n"};
    for (size_t i = 0; i < sizeof junk / sizeof *junk; i++)
        for (size_t k = 0; k < sizeof junk / sizeof *junk; k++) {
            scratch_put(dir, "proc/self/cgroup", junk[i]);
            scratch_put(dir, "proc/self/mountinfo", junk[k]);
            expect_cpus(0);
            expect_rest(UINT64_MAX);
        }
    scratch_put(dir, "proc/self/cgroup", "0::/\n");
    scratch_put(dir, "proc/self/mountinfo", V2_MOUNT);
    static const char *const values[] = {"", "max", "100000", "0 100000", "5 0", "-3 5", "x"};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        scratch_put(dir, "sys/fs/cgroup/cpu.max", values[i]);
        expect_cpus(0);
    }
}

static void physical_cores(void **state)
{
    (void)state;
    static const char *const siblings[] = {"0,4\n", "1,5\n", "2,6\n", "3,7\n"};
    for (int cpu = 0; cpu < 8; cpu++) {
        char path[128];
        snprintf(path, sizeof path, "sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
                 cpu);
        scratch_put(dir, path, siblings[cpu % 4]);
    }
    static const struct {
        uint64_t mask;
        int cores;
    } table[] = {{0xFF, 4}, {0x11, 1}, {0x13, 2}, {0xF0, 4}, {0x80, 1}, {0x22, 1}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        sfq_cpu_mask mask = {{table[i].mask}};
        assert_int_equal(sfq_limits_cores(dir, &mask), table[i].cores);
    }
    scratch_put(dir, "sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0-1\n");
    scratch_put(dir, "sys/devices/system/cpu/cpu1/topology/thread_siblings_list", "0-1\n");
    sfq_cpu_mask pair = {{3}};
    assert_int_equal(sfq_limits_cores(dir, &pair), 1);
}

static void this_machine(void **state)
{
    (void)state;
    sfq_thread_limits limits = sfq_thread_limits_get();
    assert_true(limits.affinity >= 1 && limits.affinity <= SFQ_LIMITS_CPUS);
    assert_true(limits.cores >= 1 && limits.cores <= limits.affinity);
    assert_true(limits.quota >= 0);
    int threads = sfq_threads_default();
    assert_true(threads >= 1 && threads <= limits.cores && threads <= SFQ_MAX_THREADS);
    if (limits.quota >= 1)
        assert_true(threads <= limits.quota);
    assert_int_equal(limits.affinity, sysconf(_SC_NPROCESSORS_ONLN) < limits.affinity
                                          ? sysconf(_SC_NPROCESSORS_ONLN)
                                          : limits.affinity);
}

#define WITH_SCRATCH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SCRATCH(nothing_there),   WITH_SCRATCH(version_2),     WITH_SCRATCH(version_1),
        WITH_SCRATCH(container_mount), WITH_SCRATCH(damaged_files), WITH_SCRATCH(physical_cores),
        WITH_SCRATCH(this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
