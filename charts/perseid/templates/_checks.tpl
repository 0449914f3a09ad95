{{/* What no schema can say: values that do not go together. Each message says what to do. */}}
{{- define "perseid.check" -}}
{{- if not .Values.storage.uri -}}
{{- fail "storage.uri is not set: give s3://bucket/prefix, or an absolute directory that the operator and all stages mount" -}}
{{- end -}}
{{- if and .Values.workflows.enabled .Values.watchNamespaces (not .Values.workflows.namespace) -}}
{{- fail "workflows.enabled needs workflows.namespace where watchNamespaces is given: an operator of some namespaces gets no rights in all of them; name the namespace of Kubeflow Pipelines, or that of the pipeline runs (kfp.namespace) where there are many users" -}}
{{- end -}}
{{- if and .Values.workflows.namespace (not .Values.workflows.enabled) -}}
{{- fail (printf "workflows.namespace is %q, but workflows.enabled is false: set it to true, or leave the namespace out" .Values.workflows.namespace) -}}
{{- end -}}
{{- $timeout := .Values.kfp.timeoutSeconds | default 30 -}}
{{- $grace := .Values.submitGraceSeconds | default 60 -}}
{{- if le (float64 $grace) (float64 $timeout) -}}
{{- fail (printf "submitGraceSeconds (%v) is no more than kfp.timeoutSeconds (%v): a submission could still be under way when it is given up; give a longer grace or a shorter time-out" $grace $timeout) -}}
{{- end -}}
{{- $lost := .Values.lostRunSeconds | default 300 -}}
{{- if lt (float64 $lost) (mulf 2 .Values.pollSeconds) -}}
{{- fail (printf "lostRunSeconds (%v) is less than two rounds of pollSeconds (%v): one slow answer would lose a run; give at least %v" $lost .Values.pollSeconds (mulf 2 .Values.pollSeconds)) -}}
{{- end -}}
{{- range $key, $_ := include "perseid.podLabels" . | fromYaml -}}
{{- if hasKey $.Values.podLabels $key -}}
{{- fail (printf "podLabels sets %s, which belongs to the chart itself" $key) -}}
{{- end -}}
{{- end -}}
{{- range tuple "kubectl.kubernetes.io/default-container" "checksum/settings" -}}
{{- if hasKey $.Values.podAnnotations . -}}
{{- fail (printf "podAnnotations sets %s, which belongs to the chart itself" .) -}}
{{- end -}}
{{- end -}}
{{- $owners := dict
  "POD_NAME" "the chart itself"
  "POD_NAMESPACE" "the chart itself"
  "PERSEID_KFP_ENDPOINT" "kfp.endpoint"
  "PERSEID_KFP_NAMESPACE" "kfp.namespace"
  "PERSEID_KFP_TOKEN_FILE" "kfp.token.enabled"
  "PERSEID_KFP_CA_FILE" "kfp.ca.configMap"
  "PERSEID_KFP_UI_URL" "kfp.uiUrl"
  "PERSEID_KFP_TIMEOUT_SECONDS" "kfp.timeoutSeconds"
  "PERSEID_STORAGE" "storage.uri"
  "PERSEID_STAGE_IMAGE" "stages.image"
  "PERSEID_STAGE_ENV" "stages.env"
  "PERSEID_STAGE_SECRET_ENV" "stages.secretEnv"
  "PERSEID_STAGE_SERVICE_ACCOUNT" "stages.serviceAccount"
  "PERSEID_STAGE_IMAGE_PULL_SECRETS" "stages.imagePullSecrets"
  "PERSEID_WATCH_NAMESPACE" "watchNamespaces"
  "PERSEID_POLL_SECONDS" "pollSeconds"
  "PERSEID_SUBMIT_GRACE_SECONDS" "submitGraceSeconds"
  "PERSEID_WORKFLOWS_NAMESPACE" "workflows.namespace"
  "PERSEID_LOST_RUN_SECONDS" "lostRunSeconds"
  "PERSEID_CANCEL_SECONDS" "cancelSeconds"
  "PERSEID_CLEANUP_SECONDS" "cleanupSeconds"
  "PERSEID_PROGRESS_SECONDS" "progressSeconds"
  "PERSEID_LEADER_ELECTION" "replicas"
  "PERSEID_LEASE_NAMESPACE" "the chart itself: the operator has a right to its Lease in its own namespace only"
  "PERSEID_LOG_FORMAT" "log.format"
  "PERSEID_LOG_LEVEL" "log.level"
  "PERSEID_HTTP_PORT" "the chart itself: probes and Service go to 8080"
-}}
{{- $seen := dict -}}
{{- range $list, $variables := dict "storage.env" .Values.storage.env "extraEnv" .Values.extraEnv -}}
{{- range $variables -}}
{{- if hasKey $owners .name -}}
{{- fail (printf "%s sets %s, which belongs to %s" $list .name (get $owners .name)) -}}
{{- end -}}
{{- if hasKey $seen .name -}}
{{- fail (printf "%s is set twice, in %s and in %s: leave one out" .name (get $seen .name) $list) -}}
{{- end -}}
{{- $_ := set $seen .name $list -}}
{{- end -}}
{{- end -}}
{{- end }}
