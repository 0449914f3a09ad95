{{/*
Objects have the names that manifests/ gives them, whatever the release is called: alerts, runbooks and documentation
speak of them, an installation by kubectl can be taken over, and there is one Lease and so one operator in a namespace.
*/}}
{{- define "perseid.name" -}}
perseid-operator
{{- end }}

{{- define "perseid.selectorLabels" -}}
app.kubernetes.io/name: {{ include "perseid.name" . }}
{{- end }}

{{- define "perseid.commonLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: perseid
{{- end }}

{{- define "perseid.labels" -}}
{{ include "perseid.selectorLabels" . }}
{{ include "perseid.commonLabels" . }}
{{- end }}

{{/* Without versions: a chart that only says something else restarts no operator. */}}
{{- define "perseid.podLabels" -}}
{{ include "perseid.selectorLabels" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: perseid
{{- end }}

{{- define "perseid.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ printf "%s@%s" .repository .digest }}
{{- else -}}
{{ printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Of stages whose run names none: beside the operator's, and as old as that. */}}
{{- define "perseid.stageImage" -}}
{{- $repository := .Values.stages.image.repository | default (regexReplaceAll "[^/]*$" .Values.image.repository "perseid-stage") -}}
{{- with .Values.stages.image -}}
{{- if .digest -}}
{{ printf "%s@%s" $repository .digest }}
{{- else -}}
{{ printf "%s:%s" $repository (.tag | default $.Values.image.tag | default $.Chart.AppVersion) }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Of a URL. */}}
{{- define "perseid.port" -}}
{{- $url := urlParse . -}}
{{- regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (ternary "443" "80" (eq $url.scheme "https")) -}}
{{- end }}

{{/* One object of a file that manifests/ shares with the chart: (dict "root" $ "file" "base/role.yaml" "kind" "Role") */}}
{{- define "perseid.shared" -}}
{{- $found := dict -}}
{{- range splitList "\n---\n" (.root.Files.Get (printf "files/manifests/%s" .file)) -}}
{{- $object := fromYaml . -}}
{{- if and (eq $object.kind $.kind) (or (not $.name) (eq $object.metadata.name $.name)) -}}
{{- $found = $object -}}
{{- end -}}
{{- end -}}
{{- if not $found -}}
{{- fail (printf "files/manifests/%s of the chart has no %s: the chart is broken" .file .kind) -}}
{{- end -}}
{{ toYaml $found }}
{{- end }}

{{/* What the operator reads at its start, as the data of a ConfigMap. */}}
{{- define "perseid.settings" -}}
PERSEID_KFP_ENDPOINT: {{ .Values.kfp.endpoint | quote }}
PERSEID_KFP_NAMESPACE: {{ .Values.kfp.namespace | quote }}
PERSEID_KFP_TOKEN_FILE: {{ ternary "/var/run/secrets/kubeflow/pipelines/token" "" .Values.kfp.token.enabled | quote }}
PERSEID_KFP_UI_URL: {{ .Values.kfp.uiUrl | quote }}
PERSEID_STORAGE: {{ .Values.storage.uri | quote }}
PERSEID_STAGE_IMAGE: {{ include "perseid.stageImage" . | quote }}
{{- $given := dict }}
{{- range concat .Values.stages.env .Values.stages.secretEnv }}
{{- $_ := set $given .name true }}
{{- end }}
{{- $env := .Values.stages.env }}
{{- range .Values.storage.env }}
{{- if not (hasKey $given .name) }}
{{- $env = append $env . }}
{{- end }}
{{- end }}
PERSEID_STAGE_ENV: {{ with $env }}{{ toJson . | quote }}{{ else }}""{{ end }}
PERSEID_STAGE_SECRET_ENV: {{ with .Values.stages.secretEnv }}{{ toJson . | quote }}{{ else }}""{{ end }}
{{- with .Values.stages.serviceAccount }}
PERSEID_STAGE_SERVICE_ACCOUNT: {{ . | quote }}
{{- end }}
{{- with .Values.stages.imagePullSecrets }}
{{- $names := list }}
{{- range . }}
{{- $names = append $names .name }}
{{- end }}
PERSEID_STAGE_IMAGE_PULL_SECRETS: {{ join "," $names | quote }}
{{- end }}
PERSEID_WATCH_NAMESPACE: {{ join "," .Values.watchNamespaces | quote }}
PERSEID_POLL_SECONDS: {{ .Values.pollSeconds | quote }}
PERSEID_LOG_FORMAT: {{ .Values.log.format | quote }}
PERSEID_LOG_LEVEL: {{ .Values.log.level | quote }}
{{- if .Values.kfp.ca.configMap }}
PERSEID_KFP_CA_FILE: /etc/perseid/kfp-ca/ca.crt
{{- end }}
{{- if and .Values.workflows.enabled .Values.workflows.namespace }}
PERSEID_WORKFLOWS_NAMESPACE: {{ .Values.workflows.namespace | quote }}
{{- end }}
{{- if gt (int .Values.replicas) 1 }}
PERSEID_LEADER_ELECTION: "true"
{{- end }}
{{- with .Values.kfp.timeoutSeconds }}
PERSEID_KFP_TIMEOUT_SECONDS: {{ . | quote }}
{{- end }}
{{- with .Values.submitGraceSeconds }}
PERSEID_SUBMIT_GRACE_SECONDS: {{ . | quote }}
{{- end }}
{{- with .Values.lostRunSeconds }}
PERSEID_LOST_RUN_SECONDS: {{ . | quote }}
{{- end }}
{{- with .Values.cancelSeconds }}
PERSEID_CANCEL_SECONDS: {{ . | quote }}
{{- end }}
{{- with .Values.cleanupSeconds }}
PERSEID_CLEANUP_SECONDS: {{ . | quote }}
{{- end }}
{{- with .Values.progressSeconds }}
PERSEID_PROGRESS_SECONDS: {{ . | quote }}
{{- end }}
{{- end }}

{{- define "perseid.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "perseid.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
