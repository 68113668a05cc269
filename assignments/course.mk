# course.mk - the course's targets; the Makefile includes it. assignments/README.md says what they are for.
#
# make handout        the student's tree, in build/handout
# make handout-bugs   the tree for L3.3, in build/handout-bugs: Labs 1 and 2 solved, and BUG=N of assignments/bugs.txt in it
# make tasks          what there is to do, where, for how many points
# make grade          grades this tree, or STUDENT=PATH (a directory or a .zip); TASK=..., SEED=N, BUG=N, JSON=FILE
# make grade-all      grades a class: DIR=SUBMISSIONS, a directory or .zip as Gradescope and Canvas export it; OUT=DIR, SECRET=TEXT, BUG=N
# make gdb TASK=L1.2  stops in the task's function while its exercise runs
# make fair           right solutions in every form, each of which gets all its points
# make autograder     what Gradescope wants, in build/autograder and build/autograder.zip
# make wrong          wrong solutions, and the points that each gets
# make course-check   the proof that all this grades fairly; TASK="L1.2 L1.3": of these tasks alone

.PHONY: autograder course-check grade grade-all handout handout-bugs tasks wrong fair

grade:
	@STUDENT='$(STUDENT)' TASK='$(TASK)' SEED='$(SEED)' BUG='$(BUG)' JSON='$(JSON)' CC='$(CC)' sh assignments/grade.sh

tasks:
	@awk -v mode=list -f assignments/bodies.awk assignments/tasks.txt | \
	    awk '{ at = $$3 ":" $$4; name = $$5; p = $$2; t = $$1; $$1 = $$2 = $$3 = $$4 = $$5 = ""; printf "%-5s %2d points  %-26s %-24s%s\n", t, p, at, name, $$0 }'

grade-all:
	$(if $(DIR),,$(error make grade-all DIR=SUBMISSIONS))
	@TASK='$(TASK)' BUG='$(BUG)' SECRET='$(SECRET)' CC='$(CC)' $(PYTHON) assignments/grade_all.py '$(DIR)' '$(or $(OUT),build/class)'

handout:
	@sh assignments/handout.sh

handout-bugs:
	@BUG='$(BUG)' COURSE='$(COURSE)' sh assignments/handout_bugs.sh

autograder:
	@SECRET='$(SECRET)' BUG='$(BUG)' sh assignments/autograder.sh

course-check:
	@CC='$(CC)' TASK='$(TASK)' sh assignments/check.sh

# Wrong solutions, and the points that course-check asserts for each.
wrong:
	@awk '/^#/ { next } /^$$/ { name = ""; next } name == "" { name = $$0; what = ""; next } /^task: / { task = $$2; next } what == "" { what = $$0; next } \
	    /^points: / { printf "%-5s %4s points  %-42s %s\n", task, $$2, name, what }' assignments/wrong.txt

fair:
	@awk '/^#/ { next } /^$$/ { name = ""; next } name == "" { name = $$0; what = ""; next } what == "" { what = $$0; next } \
	    /^task: / { printf "%-5s %-38s %s\n", $$2, name, what }' assignments/fair.txt

# Unoptimised and with the plain loop, like `make gdb` without a task. L3.1 has a program of its own.
ifdef TASK
COURSE = $(patsubst %,$(BUILD)/assignments/%.o,$(if $(filter L3.1,$(TASK)),bytes bytes_runner,chain claims found runner))
FUNCTION = $(shell awk '$$1 == "$(TASK)" { print $$4 }' assignments/tasks.txt)
ifeq ($(DEBUG)$(PLAIN)$(REAL),11double)
gdb: $(COURSE) $(if $(filter L3.1,$(TASK)),,$(filter-out %/predict.o,$(patsubst %,$(BUILD)/%.o,$(BOOK) $(KERNELS))))
	$(if $(FUNCTION),,$(error there is no task $(TASK); make tasks lists them))
	@$(CC) $(FLAGS) $^ -o $(BUILD)/exercise $(LIBS)
	$(GDB) -ex 'break $(FUNCTION)' -ex run $(GDBFLAGS) --args $(BUILD)/exercise $(TASK) $(or $(SEED),1)
else
gdb:
	@$(MAKE) -s --no-print-directory DEBUG=1 PLAIN=1 REAL=double gdb
endif
endif
